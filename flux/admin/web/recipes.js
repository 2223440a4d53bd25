// How to publish: commands with this server's own address.

import { copyButton, h } from "./dom.js";

function recipes(url) {
  const server = url.split("?")[0];
  return [
    {
      title: "A test picture, with ffmpeg",
      steps: [
        `ffmpeg -re -f lavfi -i testsrc2=size=1280x720:rate=30 -f lavfi -i sine=frequency=440 -c:v libx264 -preset veryfast -tune zerolatency -pix_fmt yuv420p -g 60 -c:a aac -f mpegts '${url}'`,
      ],
    },
    { title: "A file, with ffmpeg", steps: [`ffmpeg -re -stream_loop -1 -i FILE -c copy -f mpegts '${url}'`] },
    { title: "An MPEG-TS file, with Flux", steps: [`flux publish FILE.ts '${url}' --loop`] },
    {
      title: "OBS Studio",
      text: "Settings, Stream, Service: Custom. Server as below, Stream Key empty. Settings, Output: keyframe interval 2 s.",
      steps: [url],
    },
    {
      title: "An encoder or a camera",
      text: `SRT, mode caller, address ${server.replace("srt://", "")}, and this stream id:`,
      steps: [decodeURIComponent(url.split("streamid=")[1] ?? "")],
    },
  ];
}

export function renderRecipes(parent, url) {
  if (parent.dataset.url === url) return;
  parent.dataset.url = url;
  if (!url) {
    parent.replaceChildren(h("p", {}, "This server does not listen for SRT: srt.listen is empty."));
    return;
  }
  parent.replaceChildren(
    ...recipes(url).map(({ title, text, steps }) =>
      h(
        "section.recipe",
        {},
        h("h2", {}, title),
        ...(text ? [h("p", {}, text)] : []),
        ...steps.map((step) => h("div.command", {}, h("code", { tabindex: "0" }, step), copyButton(() => step, title))),
      ),
    ),
  );
}
