"""Writes the bits of parameter sets and SEI messages."""

from __future__ import annotations


class Bits:
    def __init__(self) -> None:
        self.text = ""

    def u(self, count: int, value: int) -> Bits:
        """u(count)"""
        self.text += format(value, f"0{count}b") if count else ""
        assert value < 1 << count or not count
        return self

    def ue(self, value: int) -> Bits:
        """ue(v), H.264 clause 9.1"""
        code = format(value + 1, "b")
        self.text += "0" * (len(code) - 1) + code
        return self

    def se(self, value: int) -> Bits:
        """se(v), H.264 clause 9.1.1"""
        return self.ue(2 * value - 1 if value > 0 else -2 * value)

    def bytes(self, trailing: bool = True) -> bytes:
        """All bits, with rbsp_trailing_bits."""
        text = self.text + ("1" if trailing else "")
        text += "0" * (-len(text) % 8)
        return bytes(int(text[at : at + 8], 2) for at in range(0, len(text), 8))


def escape(rbsp: bytes) -> bytes:
    """With emulation_prevention_three_byte (H.264 7.4.1)."""
    out = bytearray()
    zeros = 0
    for byte in rbsp:
        if zeros >= 2 and byte <= 3:
            out.append(3)
            zeros = 0
        out.append(byte)
        zeros = zeros + 1 if byte == 0 else 0
    return bytes(out)
