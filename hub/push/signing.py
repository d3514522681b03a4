"""Ed25519 signatures of manifests, by the library cryptography.

The signature covers the manifest alone, as the manifest holds the hash of every file. model-signing, sigstore's tool
for models, would hash the files a second time and needs 17 more packages (35 MB); its version 1.1.1 cannot be imported
as pip installs it, since it does not declare pyOpenSSL.
"""

import base64
import binascii
import hashlib
from pathlib import Path
from typing import Any

SIGNATURE = "manifest.json.sig"


class KeyFileError(ValueError):
    """A key cannot be used; the message names the file and what would be right."""


def sign(content: bytes, private_key: Path) -> bytes:
    """Signature of a manifest as text, base64.

    Args:
        content: Bytes of the manifest.
        private_key: PEM file of an Ed25519 key without a password.

    Raises:
        KeyFileError: The file holds no such key, or cryptography is not installed.
    """
    return base64.b64encode(_load(private_key, private=True).sign(content)) + b"\n"


def is_signed_by(content: bytes, signature: bytes, public_key: Path) -> bool:
    """Returns True if the signature was made for exactly this content by the private half of the key.

    Args:
        content: Bytes of the manifest.
        signature: Content of the file `SIGNATURE`.
        public_key: PEM file of an Ed25519 public key.

    Raises:
        KeyFileError: The file holds no such key, or cryptography is not installed.
    """
    key = _load(public_key, private=False)
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(base64.b64decode(signature.strip(), validate=True), content)
    except (InvalidSignature, binascii.Error, ValueError):
        return False
    return True


def key_name(public_key: Path) -> str:
    """First 16 hexadecimal digits of the SHA-256 hash of a public key, by which people compare keys."""
    return hashlib.sha256(_load(public_key, private=False).public_bytes_raw()).hexdigest()[:16]


def _load(file: Path, *, private: bool) -> Any:
    try:
        from cryptography.hazmat.primitives.asymmetric import ed25519
        from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
    except ImportError as error:
        raise KeyFileError("signatures need cryptography: pip install 'vithub[signing]'") from error
    what = "private" if private else "public"
    try:
        content = file.expanduser().read_bytes()
        key = load_pem_private_key(content, None) if private else load_pem_public_key(content)
    except (OSError, ValueError, TypeError) as error:
        reason = "it has a password" if isinstance(error, TypeError) else str(error).splitlines()[0]
        raise KeyFileError(f"{file} is no {what} key in PEM, which `openssl genpkey` makes: {reason}") from error
    if not isinstance(key, ed25519.Ed25519PrivateKey if private else ed25519.Ed25519PublicKey):
        raise KeyFileError(f"{file} is a key of another kind; an Ed25519 {what} key is needed")
    return key


__all__ = ["SIGNATURE", "KeyFileError", "is_signed_by", "key_name", "sign"]
