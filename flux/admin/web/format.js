// Numbers as people read them.

export function bitrate(bps) {
  if (bps === null || bps === undefined) return "–";
  if (bps >= 999_500) return `${(bps / 1e6).toFixed(bps >= 99.95e6 ? 0 : bps >= 9.995e6 ? 1 : 2)} Mbit/s`;
  return `${Math.round(bps / 1000)} kbit/s`;
}

export function bytes(count) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (count >= 999.5 && unit < units.length - 1) {
    count /= 1000;
    unit += 1;
  }
  return `${unit && count < 99.5 ? count.toFixed(1) : Math.round(count)} ${units[unit]}`;
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${String(s % 60).padStart(2, "0")} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${String(Math.floor((s % 3600) / 60)).padStart(2, "0")} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

// As the stream declares it, else as measured.
export function frameRate(stream) {
  const declared = stream.tracks.find((track) => track.kind === "video")?.fps;
  if (declared) return `${Number(declared.toFixed(2))} fps`;
  return stream.fps ? `${Math.round(stream.fps)} fps` : "";
}

export const codecName = (codec) => ({ H264: "H.264", H265: "H.265" })[codec] ?? codec;

export function trackText(track) {
  const name = codecName(track.codec);
  if (track.kind === "video") return track.width ? `${name} ${track.width}×${track.height}` : name;
  if (track.kind === "audio") {
    const rate = track.sample_rate ? ` ${Number((track.sample_rate / 1000).toFixed(3))} kHz` : "";
    const channels = { 1: " mono", 2: " stereo" }[track.channels] ?? (track.channels ? ` ${track.channels} channels` : "");
    return name + rate + channels;
  }
  return name;
}
