"""Names of the codec numbers."""

NAMES = {
    CODEC_NONE: "",
    CODEC_H264: "H264",
    CODEC_H265: "H265",
    CODEC_AV1: "AV1",
    CODEC_VP8: "VP8",
    CODEC_VP9: "VP9",
    CODEC_MJPEG: "MJPEG",
    CODEC_AAC: "AAC",
    CODEC_OPUS: "Opus",
    CODEC_PCMA: "PCMA",
    CODEC_PCMU: "PCMU",
    CODEC_MP3: "MP3",
    CODEC_AC3: "AC3",
    CODEC_EAC3: "EAC3",
    CODEC_DATA: "data",
}
