"""A certificate authority of our own, made anew for every test that signs."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

USAGES = (
    "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
    "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
)  # fmt: skip


@dataclass(frozen=True)
class Chain:
    """PEM bytes: the signer's certificate and its root's, the signer's key, the root alone and its key."""

    certificates: bytes
    private_key: bytes
    root: bytes
    root_key: bytes


def make_chain(kind: str = "ec", name: str = "a test signer") -> Chain:
    """A root and a certificate under it that may sign pictures, with a key of the given kind: ec, ed25519 or rsa."""
    root_key = ec.generate_private_key(ec.SECP256R1())
    key: Any = {
        "ec": lambda: ec.generate_private_key(ec.SECP256R1()),
        "ed25519": ed25519.Ed25519PrivateKey.generate,
        "rsa": lambda: rsa.generate_private_key(65537, 2048),
    }[kind]()
    root = _issue("a test root", root_key.public_key(), "a test root", root_key, authority=True)
    signer = _issue(name, key.public_key(), "a test root", root_key, authority=False)
    return Chain(_pem(signer) + _pem(root), _secret(key), _pem(root), _secret(root_key))


def _issue(subject: str, public_key: Any, issuer: str, issuer_key: Any, authority: bool) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    allowed = {"key_cert_sign", "crl_sign"} if authority else {"digital_signature"}
    certificate = (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(issuer))
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**{usage: usage in allowed for usage in USAGES}), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    if not authority:
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
        certificate = certificate.add_extension(usage, critical=False)
    return certificate.sign(issuer_key, hashes.SHA256())


def _name(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "vargpt tests"),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _secret(key: Any) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
