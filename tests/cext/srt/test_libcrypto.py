"""libcrypto against published vectors: RFC 3394, RFC 6070, SP 800-38A, and GCM's own test cases."""

from __future__ import annotations

import subprocess
import sys

import pytest
from flux.cext.srt import libcrypto
from hypothesis import given
from hypothesis import strategies as st

COUNT = bytes(range(32))
PLAIN = bytes.fromhex("00112233445566778899aabbccddeeff000102030405060708090a0b0c0d0e0f")

# RFC 3394, 4.1 to 4.6: bytes of the key-encrypting key and of the key, and the key wrapped.
WRAPS = [
    (16, 16, "1fa68b0a8112b447aef34bd8fb5a7b829d3e862371d2cfe5"),
    (24, 16, "96778b25ae6ca435f92b5b97c050aed2468ab8a17ad84e5d"),
    (32, 16, "64e8c3f9ce0f5ba263e9777905818a2a93c8191e7d6e8ae7"),
    (24, 24, "031d33264e15d33268f24ec260743edce1c6c7ddee725a936ba814915c6762d2"),
    (32, 24, "a8f9bc1612c68b3ff6e6f4fbe30e71e4769c8b80a32cb8958cd5d17d6b254da1"),
    (32, 32, "28c9f404c4b810f4cbccb35cfb87f8263f5786e2d80ed326cbc7f0e71a99f43bfb988b9b7a02dd21"),
]

# RFC 6070, 2
DERIVATIONS = [
    (b"password", b"salt", 1, "0c60c80f961f0e71f3a9b524af6012062fe037a6"),
    (b"password", b"salt", 2, "ea6c014dc72d6f8ccd1ed92ace1d41f0d8de8957"),
    (b"password", b"salt", 4096, "4b007901b765489abead49d926f721d065a429c1"),
    (
        b"passwordPASSWORDpassword",
        b"saltSALTsaltSALTsaltSALTsaltSALTsalt",
        4096,
        "3d2eec4fe41c849b80c8d83662c0e44a8b291a964cf2f07038",
    ),
    (b"pass\0word", b"sa\0lt", 4096, "56fa6aa75548099dcc37d7f03425e0c3"),
]

# SP 800-38A, F.5: four blocks, from the counter block f0 to ff on.
COUNTER = bytes(range(0xF0, 0x100))
BLOCKS = bytes.fromhex(
    "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
    "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710"
)
CTR = [
    (
        "2b7e151628aed2a6abf7158809cf4f3c",
        "874d6191b620e3261bef6864990db6ce9806f66b7970fdff8617187bb9fffdff"
        "5ae4df3edbd5d35e5b4f09020db03eab1e031dda2fbe03d1792170a0f3009cee",
    ),
    (
        "8e73b0f7da0e6452c810f32b809079e562f8ead2522c6b7b",
        "1abc932417521ca24f2b0459fe7e6e0b090339ec0aa6faefd5ccc2c6f4ce8e94"
        "1e36b26bd1ebc670d1bd1d665620abf74f78a7f6d29809585a97daec58c6b050",
    ),
    (
        "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4",
        "601ec313775789a5b7a7f504bbf3d228f443e3ca4d62b59aca84e990cacaf5c5"
        "2b0930daa23de94ce87017ba2d84988ddfc9c58db67aada613c2dd08457941a6",
    ),
]

# McGrew and Viega, "The Galois/Counter Mode of Operation", appendix B:
# key, IV, header, plaintext, ciphertext and tag.
GCM_KEY = "feffe9928665731c6d6a8f9467308308"
GCM_IV = "cafebabefacedbaddecaf888"
GCM_HEADER = "feedfacedeadbeeffeedfacedeadbeefabaddad2"
GCM_PLAIN = (
    "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
    "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39"
)
GCM = {
    "case 2": (
        "00" * 16,
        "00" * 12,
        "",
        "00" * 16,
        "0388dace60b6a392f328c2b971b2fe78ab6e47d42cec13bdf53a67b21257bddf",
    ),
    "case 3": (
        GCM_KEY,
        GCM_IV,
        "",
        GCM_PLAIN + "1aafd255",
        "42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e"
        "21d514b25466931c7d8f6a5aac84aa051ba30b396a0aac973d58e091473f5985"
        "4d5c2af327cd64a62cf35abd2ba6fab4",
    ),
    "case 4": (
        GCM_KEY,
        GCM_IV,
        GCM_HEADER,
        GCM_PLAIN,
        "42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e"
        "21d514b25466931c7d8f6a5aac84aa051ba30b396a0aac973d58e091"
        "5bc94fbc3221a5db94fae95ae7121a47",
    ),
    "case 8": (
        "00" * 24,
        "00" * 12,
        "",
        "00" * 16,
        "98e7247c07f0fe411c267e4384b0f6002ff58d80033927ab8ef4d4587514f0fb",
    ),
    "case 10": (
        GCM_KEY + GCM_KEY[:16],
        GCM_IV,
        GCM_HEADER,
        GCM_PLAIN,
        "3980ca0b3c00e841eb06fac4872a2757859e1ceaa6efd984628593b40ca1e19c"
        "7d773d00c144c525ac619d18c84a3f4718e2448b2fe324d9ccda2710"
        "2519498e80f1478f37ba55bd6d27618c",
    ),
    "case 14": (
        "00" * 32,
        "00" * 12,
        "",
        "00" * 16,
        "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919",
    ),
    "case 16": (
        GCM_KEY * 2,
        GCM_IV,
        GCM_HEADER,
        GCM_PLAIN,
        "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
        "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662"
        "76fc6ece0f4e1768cddf8853bb2d551b",
    ),
}

keys = st.sampled_from([16, 24, 32]).flatmap(lambda n: st.binary(min_size=n, max_size=n))


@pytest.mark.parametrize(("kek_bytes", "key_bytes", "wrapped"), WRAPS)
def test_key_wrap(kek_bytes: int, key_bytes: int, wrapped: str) -> None:
    kek, key = COUNT[:kek_bytes], PLAIN[:key_bytes]
    assert libcrypto.wrap(kek, key).hex() == wrapped
    assert libcrypto.unwrap(kek, bytes.fromhex(wrapped)) == key


@given(kek=keys, key=keys, bit=st.integers(0))
def test_a_wrapped_key_with_a_bit_changed_is_no_key(kek: bytes, key: bytes, bit: int) -> None:
    wrapped = bytearray(libcrypto.wrap(kek, key))
    wrapped[bit // 8 % len(wrapped)] ^= 1 << bit % 8
    assert libcrypto.unwrap(kek, bytes(wrapped)) is None


@given(kek=st.binary(max_size=40), data=st.binary(max_size=80))
def test_whatever_is_to_be_unwrapped_is_a_key_or_none(kek: bytes, data: bytes) -> None:
    key = libcrypto.unwrap(kek, data)
    assert key is None or libcrypto.wrap(kek, key) == data


@pytest.mark.parametrize(("kek", "key"), [(b"x" * 15, b"k" * 16), (b"", b""), (b"x" * 16, b"k" * 17)])
def test_sizes_that_key_wrap_has_not_are_refused(kek: bytes, key: bytes) -> None:
    with pytest.raises(ValueError, match="can't be wrapped"):
        libcrypto.wrap(kek, key)


@pytest.mark.parametrize(("passphrase", "salt", "iterations", "key"), DERIVATIONS)
def test_key_derivation(passphrase: bytes, salt: bytes, iterations: int, key: str) -> None:
    assert libcrypto.derive(passphrase, salt, iterations, len(key) // 2).hex() == key


@pytest.mark.slow
def test_key_derivation_with_many_iterations() -> None:
    key = "eefe3d61cd4da4e4e9945b3d6ba2158c2634e984"
    assert libcrypto.derive(b"password", b"salt", 16777216, 20).hex() == key


@pytest.mark.parametrize(("key", "cipher"), CTR)
def test_ctr(key: str, cipher: str) -> None:
    aes = libcrypto.Aes(bytes.fromhex(key))
    assert aes.ctr(COUNTER, BLOCKS).hex() == cipher
    assert aes.ctr(COUNTER, bytes.fromhex(cipher)) == BLOCKS
    assert aes.ctr(COUNTER, BLOCKS[:37]).hex() == cipher[:74]


@pytest.mark.parametrize("name", GCM)
def test_gcm(name: str) -> None:
    key, iv, header, plain, cipher = map(bytes.fromhex, GCM[name])
    aes = libcrypto.Aes(key, "gcm")
    assert aes.seal(iv, header, plain) == cipher
    assert aes.open(iv, header, cipher) == plain
    assert aes.open(iv, header + b"x", cipher) is None
    # One that fails leaves the next as it was.
    assert aes.open(iv, header, cipher) == plain


@given(
    key=keys,
    iv=st.binary(min_size=12, max_size=12),
    header=st.binary(max_size=20),
    data=st.binary(max_size=1456),
    bit=st.integers(0),
)
def test_gcm_notices_each_bit(key: bytes, iv: bytes, header: bytes, data: bytes, bit: int) -> None:
    aes = libcrypto.Aes(key, "gcm")
    sealed = aes.seal(iv, header, data)
    assert aes.open(iv, header, sealed) == data
    damaged = bytearray(sealed)
    damaged[bit // 8 % len(sealed)] ^= 1 << bit % 8
    assert aes.open(iv, header, bytes(damaged)) is None


@pytest.mark.parametrize("size", [0, 8, 15, 17, 33])
def test_keys_of_other_sizes_are_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"a key of {size} bytes; AES has 16, 24 or 32"):
        libcrypto.Aes(bytes(size))


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (("libabsent.so.9",), "needs OpenSSL's libcrypto (libabsent.so.9); install the package libssl3"),
        (("libabsent.so.9", "libc.so.6"), "libcrypto has no EVP_CIPHER_CTX_new"),
    ],
)
def test_a_machine_without_libcrypto_is_told_so_in_one_line(names: tuple[str, ...], text: str) -> None:
    # In a process of its own, as this one has loaded it.
    code = f"""
from flux.cext.srt import libcrypto
try:
    libcrypto.load({names!r})
except RuntimeError as error:
    print(error)
libcrypto.load()
print(len(libcrypto.wrap(bytes(16), bytes(16))))
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    error, length = said.splitlines()
    assert text in error
    assert length == "24"
