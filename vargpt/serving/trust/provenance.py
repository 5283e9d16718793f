"""Content credentials: a signed statement inside a PNG that a model drew it, when, and from what.

In: the bytes of a PNG and what is known about it. Out: the same picture with a C2PA manifest; and the way back, what a
picture says about itself and whether the statement still fits. Nothing here reaches for the network: no time stamps, no
certificate status, no remote manifests. Needs `pip install 'vargpt[provenance]'`.

Source: C2PA specification 2.x (actions `c2pa.created`), IPTC digital source types.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DIGITAL_SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
DETAILS = "org.vargpt.generation"  # label of the assertion that holds prompt, seed and settings
PNG = "image/png"
OFFLINE = {
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False},
    "builder": {"thumbnail": {"enabled": False}},
}


@dataclass(frozen=True)
class Credentials:
    """What a picture says about itself.

    Attributes:
        state: "trusted" (signed by somebody under a trusted root), "valid" (unchanged since it was signed, by a signer
            nobody vouches for) or "invalid" (picture or statement were changed afterwards).
        signer: common name, or else organisation, of the signing certificate.
        software: what wrote the statement.
        digital_source_type: IPTC address of how the picture came about; None if the statement does not say.
        details: prompt, seed and whatever else `Signature.sign` was given.
        failures: codes of what did not hold.
    """

    state: str
    signer: str | None
    software: str | None
    digital_source_type: str | None
    details: dict[str, Any]
    failures: tuple[str, ...]


@dataclass(frozen=True)
class Signature:
    """Who signs: a certificate chain (PEM, the signer's own first) and its private key; checked when made.

    The signer's certificate must allow digital signatures and carry an extended key usage such as e-mail protection;
    its issuer belongs into the chain. Keys may be EC (P-256, P-384, P-521), Ed25519 or RSA from 2048 bits.
    """

    certificates: bytes
    private_key: bytes = field(repr=False)

    def __post_init__(self) -> None:
        self.sign(_smallest_png(), {})  # what the library will not sign with shows now, not with the first picture

    @classmethod
    def from_files(cls, certificates: str | Path, private_key: str | Path) -> Signature:
        """The signature whose chain and key (without a passphrase) lie in two PEM files.

        Raises:
            FileNotFoundError: one of the files is not there.
            ValueError: they do not hold a certificate and its key, or the certificate may not sign pictures.
            ImportError: c2pa-python is not installed.
        """
        contents = []
        for name in (certificates, private_key):
            if not Path(name).is_file():
                raise FileNotFoundError(f"there is no file {name}; content credentials need a certificate and its key")
            contents.append(Path(name).read_bytes())
        return cls(*contents)

    def sign(self, png: bytes, details: Mapping[str, Any]) -> bytes:
        """The same picture with a manifest that says a model drew it.

        Args:
            png: the bytes of a PNG; its text chunks stay.
            details: what `vargpt.pictures.files.png_with_metadata` takes too: prompt, seed, settings, model, software.
                Becomes part of the signed statement; leave out what nobody should read. None is left out.

        Raises:
            ValueError: not a PNG, or the library refuses to sign.
            ImportError: c2pa-python is not installed.
        """
        c2pa = _library()
        signed = io.BytesIO()
        algorithm, key = _algorithm_and_key(self.certificates, self.private_key)
        try:
            info = c2pa.C2paSignerInfo(algorithm, self.certificates, key, None)
            with c2pa.Signer.from_info(info) as signer, c2pa.Context.from_dict(OFFLINE) as context:
                with c2pa.Builder(_manifest(details), context=context) as builder:
                    builder.sign(signer, PNG, io.BytesIO(png), signed)
        except c2pa.C2paError as error:
            raise ValueError(f"the picture cannot be signed: {error}; see docs/serving.md for certificates") from None
        return signed.getvalue()


def read_credentials(picture: bytes, trusted: bytes = b"", media_type: str = PNG) -> Credentials | None:
    """What a picture says about itself, and whether that holds; None if it carries no statement.

    Args:
        picture: the bytes of the file.
        trusted: PEM certificates of the roots that vouch for signers.
        media_type: "image/png", "image/jpeg" ...

    Raises:
        ValueError: no picture, or a statement that cannot be read.
        ImportError: c2pa-python is not installed.
    """
    c2pa = _library()
    settings = OFFLINE | ({"trust": {"user_anchors": trusted.decode("ascii")}} if trusted else {})
    try:
        with c2pa.Context.from_dict(settings) as context:
            reader = c2pa.Reader.try_create(media_type, io.BytesIO(picture), context=context)
            if reader is None:
                return None
            with reader:
                return _credentials(reader)
    except c2pa.C2paError as error:
        raise ValueError(f"the picture's credentials cannot be read: {error}") from None


def _credentials(reader: Any) -> Credentials:
    manifest = reader.get_active_manifest() or {}
    assertions = {entry.get("label"): entry.get("data") or {} for entry in manifest.get("assertions", ())}
    actions: list[dict[str, Any]] = next(
        (data.get("actions", []) for label, data in assertions.items() if "c2pa.actions" in label), []
    )
    results = (reader.get_validation_results() or {}).get("activeManifest", {})
    signature, software = manifest.get("signature_info") or {}, (manifest.get("claim_generator_info") or [{}])[0]
    return Credentials(
        state=str(reader.get_validation_state() or "invalid").lower(),
        signer=signature.get("common_name") or signature.get("issuer"),
        software=" ".join(software[key] for key in ("name", "version") if key in software) or None,
        digital_source_type=next((one["digitalSourceType"] for one in actions if "digitalSourceType" in one), None),
        details=dict(assertions.get(DETAILS, {})),
        failures=tuple(sorted({failure["code"] for failure in results.get("failure", ())})),
    )


def _manifest(details: Mapping[str, Any]) -> dict[str, Any]:
    known = {key: value for key, value in details.items() if value is not None}
    name, _, version = str(known.get("software", "vargpt")).partition(" ")
    generator = {"name": name} | ({"version": version} if version else {})
    agent = {"name": str(known.get("model", name))} | (
        {"version": str(known["model_hash"])} if "model_hash" in known else {}
    )
    created = {"action": "c2pa.created", "digitalSourceType": DIGITAL_SOURCE_TYPE, "softwareAgent": agent}
    return {
        "claim_generator_info": [generator],
        "format": PNG,
        "assertions": [
            {"label": "c2pa.actions.v2", "data": {"actions": [created]}},
            *([{"label": DETAILS, "data": known}] if known else []),
        ],
    }


def _algorithm_and_key(certificates: bytes, private_key: bytes) -> tuple[Any, bytes]:
    """The algorithm that fits a key, and the key as the library reads it (PKCS 8)."""
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    try:
        owner = x509.load_pem_x509_certificates(certificates)[0]
        key = serialization.load_pem_private_key(private_key, password=None)
    except (ValueError, TypeError) as error:
        raise ValueError(f"no PEM certificate and private key without a passphrase: {error}") from None
    if key.public_key() != owner.public_key():
        raise ValueError("the private key does not belong to the first certificate of the chain")
    algorithms = _library().C2paSigningAlg
    curves = {256: algorithms.ES256, 384: algorithms.ES384, 521: algorithms.ES512}
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.key_size in curves:
        algorithm = curves[key.curve.key_size]
    elif isinstance(key, ed25519.Ed25519PrivateKey):
        algorithm = algorithms.ED25519
    elif isinstance(key, rsa.RSAPrivateKey) and key.key_size >= 2048:
        algorithm = algorithms.PS256
    else:
        raise ValueError("pictures are signed with EC (P-256, P-384, P-521), Ed25519 or RSA keys from 2048 bits")
    pkcs8 = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return algorithm, pkcs8


def _smallest_png() -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (1, 1)).save(buffer, format="PNG")
    return buffer.getvalue()


def _library() -> Any:
    try:
        import c2pa
    except ImportError:
        raise ImportError("content credentials need c2pa-python: pip install 'vargpt[provenance]'") from None
    return c2pa
