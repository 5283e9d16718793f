"""Content credentials, written with a chain made here and read back by the library."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.serving.certificates import make_chain
from vargpt.pictures.files import png_with_metadata
from vargpt.serving.trust.provenance import DIGITAL_SOURCE_TYPE, Signature, read_credentials

pytest.importorskip("c2pa")

DETAILS = {
    "prompt": "a fox next to a pine tree, 夜 ☾", "seed": 7, "settings": {"temperature": 0.5}, "model": "nano",
    "model_hash": "0123abcd", "software": "vargpt 0.1.0", "adapter": None,
}  # fmt: skip


def drawn() -> bytes:
    return png_with_metadata(Image.effect_noise((64, 64), 40).convert("RGB"), {"prompt": DETAILS["prompt"], "seed": 7})


@pytest.mark.parametrize("kind", ["ec", "ed25519", "rsa"])
def test_what_is_signed_is_read_back_and_the_picture_is_the_same(kind: str) -> None:
    chain, png = make_chain(kind), drawn()
    signed = Signature(chain.certificates, chain.private_key).sign(png, DETAILS)
    found = read_credentials(signed, trusted=chain.root)
    assert found is not None
    assert (found.state, found.failures) == ("trusted", ())
    assert found.digital_source_type == DIGITAL_SOURCE_TYPE
    assert found.details == {key: value for key, value in DETAILS.items() if value is not None}
    assert (found.signer, found.software) == ("a test signer", "vargpt 0.1.0")
    before, after = Image.open(io.BytesIO(png)), Image.open(io.BytesIO(signed))
    assert before.tobytes() == after.tobytes()
    assert before.info == after.info  # the text chunks are still there


def test_a_signer_nobody_vouches_for_is_valid_but_not_trusted() -> None:
    chain = make_chain()
    signed = Signature(chain.certificates, chain.private_key).sign(drawn(), {})
    assert read_credentials(signed).state == "valid"
    assert read_credentials(signed, trusted=make_chain().root).state == "valid"


def test_a_changed_picture_is_found_out() -> None:
    chain = make_chain()
    signed = bytearray(Signature(chain.certificates, chain.private_key).sign(drawn(), DETAILS))
    signed[signed.find(b"IDAT") + 20] ^= 1
    found = read_credentials(bytes(signed), trusted=chain.root)
    assert found.state == "invalid"
    assert "assertion.dataHash.mismatch" in found.failures


def test_a_picture_without_credentials_says_nothing() -> None:
    assert read_credentials(drawn()) is None


def test_certificates_come_from_files_and_mistakes_show_at_once(tmp_path: Path) -> None:
    chain, other = make_chain(), make_chain()
    certificates, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    certificates.write_bytes(chain.certificates)
    with pytest.raises(FileNotFoundError, match="key.pem"):
        Signature.from_files(certificates, key)
    key.write_bytes(other.private_key)
    with pytest.raises(ValueError, match="does not belong"):
        Signature.from_files(certificates, key)
    key.write_bytes(b"no key at all")
    with pytest.raises(ValueError, match="PEM"):
        Signature.from_files(certificates, key)
    key.write_bytes(chain.private_key)
    signature = Signature.from_files(certificates, key)
    assert "PRIVATE" not in repr(signature)
    assert read_credentials(signature.sign(drawn(), DETAILS)).state == "valid"


def test_what_no_verifier_would_accept_is_refused_before_the_first_picture() -> None:
    chain = make_chain()
    with pytest.raises(ValueError, match="cannot be signed.*self-signed"):
        Signature(chain.root, chain.root_key)


def test_only_png_is_signed() -> None:
    chain = make_chain()
    with pytest.raises(ValueError, match="cannot be signed"):
        Signature(chain.certificates, chain.private_key).sign(b"not a PNG", {})


def test_without_the_library_the_extra_is_named() -> None:
    code = (
        "import sys; sys.modules['c2pa'] = None\n"
        "import vargpt.serving.trust.provenance as provenance\n"
        "try: provenance.read_credentials(b'')\n"
        "except ImportError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert "vargpt[provenance]" in done.stdout, done.stderr
