// Plays one stream into a <video>: HTTP-FLV by mpegts.js, HLS by hls.js or the browser itself.

const K_RETRY_MS = [1000, 2000, 4000];
const K_FAR_BEHIND_S = 8;

const scripts = new Map();

function load(source) {
  if (!scripts.has(source)) {
    scripts.set(
      source,
      new Promise((resolve, reject) => {
        const script = document.createElement("script");
        script.src = source;
        script.onload = resolve;
        script.onerror = () => {
          scripts.delete(source);
          script.remove();
          reject(new Error(`${source} can't be loaded`));
        };
        document.head.append(script);
      }),
    );
  }
  return scripts.get(source);
}

export function canDecode(stream) {
  const source = window.MediaSource ?? window.ManagedMediaSource;
  if (!source) return true;
  const types = { H264: "avc1.42E01E", H265: "hvc1.1.6.L93.B0", AAC: "mp4a.40.2" };
  const missing = stream.tracks.find(
    (track) =>
      types[track.codec] &&
      !source.isTypeSupported(`${track.kind === "audio" ? "audio" : "video"}/mp4; codecs="${types[track.codec]}"`),
  );
  return missing ? missing.codec : true;
}

export class Player {
  // onState(state, why): "loading", "playing", "stalled" (nothing to show), "waiting" (will try again), "failed"
  constructor(video, kind, url, stream, onState) {
    this.kind = kind;
    this.url = url;
    this.video = video;
    this.stopped = false;
    this.tries = 0;
    this.onState = onState;
    this.tracks = stream.tracks;
    this.playing = () => {
      this.tries = 0;
      this.tell("playing");
    };
    this.stalled = () => video.dataset.state === "playing" && this.tell("stalled");
    video.addEventListener("playing", this.playing);
    video.addEventListener("waiting", this.stalled);
    this.begin();
  }

  tell(state, why = "") {
    if (!this.stopped) this.onState(state, why);
  }

  async begin() {
    this.tell("loading");
    try {
      await (this.kind === "flv" ? this.beginFlv() : this.beginHls());
    } catch (error) {
      this.again(error.message);
    }
  }

  async beginFlv() {
    await load("vendor/mpegts.js");
    if (this.stopped) return;
    const { mpegts } = window;
    if (!mpegts.isSupported()) {
      this.tell("failed", "This browser has no Media Source Extensions; try HLS.");
      return;
    }
    mpegts.LoggingControl.enableVerbose = false;
    mpegts.LoggingControl.enableInfo = false;
    const has = (kind) => this.tracks.some((track) => track.kind === kind);
    const source = { type: "flv", isLive: true, url: this.url, hasVideo: has("video"), hasAudio: has("audio") };
    this.engine = mpegts.createPlayer(source, {
      enableStashBuffer: false,
      lazyLoad: false,
      liveSync: true,
      liveSyncMaxLatency: 3,
      liveSyncTargetLatency: 1,
      liveSyncPlaybackRate: 1.1,
      autoCleanupSourceBuffer: true,
    });
    this.engine.on(mpegts.Events.ERROR, (type, detail) => this.again(`${type}: ${detail}`));
    this.engine.on(mpegts.Events.LOADING_COMPLETE, () => this.again("the stream ended"));
    this.engine.attachMediaElement(this.video);
    this.engine.load();
    this.start();
  }

  async beginHls() {
    await load("vendor/hls.min.js");
    if (this.stopped) return;
    const { Hls } = window;
    if (!Hls.isSupported()) {
      if (!this.video.canPlayType("application/vnd.apple.mpegurl")) {
        this.tell("failed", "This browser plays no HLS; try HTTP-FLV.");
        return;
      }
      this.video.src = this.url;
      this.video.onerror = () => this.again("the browser gave up");
      this.start();
      return;
    }
    this.engine = new Hls({ maxBufferLength: 20, backBufferLength: 30 });
    this.engine.on(Hls.Events.ERROR, (_, data) => {
      if (!data.fatal) return;
      if (data.type === Hls.ErrorTypes.MEDIA_ERROR && this.tries === 0) {
        this.tries += 1;
        this.engine.recoverMediaError();
      } else {
        this.again(data.details);
      }
    });
    this.engine.on(Hls.Events.MANIFEST_PARSED, () => this.start());
    this.engine.loadSource(this.url);
    this.engine.attachMedia(this.video);
  }

  start() {
    this.video.play().catch((error) => {
      if (error.name === "NotAllowedError") this.tell("waiting", "Press play: the browser does not start by itself.");
    });
  }

  again(why) {
    if (this.stopped || this.timer) return;
    this.release();
    this.tell("waiting", why);
    const wait = K_RETRY_MS[Math.min(this.tries, K_RETRY_MS.length - 1)];
    this.tries += 1;
    this.timer = setTimeout(() => {
      this.timer = 0;
      this.begin();
    }, wait);
  }

  // Seconds between what is shown and the newest that was received; null when nothing is.
  behind() {
    const { buffered, currentTime } = this.video;
    return buffered.length ? Math.max(0, buffered.end(buffered.length - 1) - currentTime) : null;
  }

  // A page that was in the background has fallen behind.
  catchUp() {
    const { buffered } = this.video;
    if (this.kind === "flv" && this.behind() > K_FAR_BEHIND_S) {
      this.video.currentTime = buffered.end(buffered.length - 1) - 0.5;
    }
  }

  release() {
    const engine = this.engine;
    this.engine = null;
    engine?.destroy();
    this.video.onerror = null;
    this.video.removeAttribute("src");
    this.video.load();
  }

  stop() {
    this.stopped = true;
    clearTimeout(this.timer);
    this.video.removeEventListener("playing", this.playing);
    this.video.removeEventListener("waiting", this.stalled);
    this.release();
  }
}
