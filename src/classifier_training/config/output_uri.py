"""Where a run may be copied to: a protocol, a place, and no secrets."""

from __future__ import annotations

from urllib.parse import urlsplit

PROTOCOLS = ("file", "gs", "memory", "s3")


def check_output_uri(uri: str) -> None:
    """Refuse what cannot be written to, or would write secrets into config.yaml and logs.

    Raises:
        ValueError: Why not.
    """
    parts = urlsplit(uri)
    if parts.scheme not in PROTOCOLS:
        allowed = ", ".join(f"{protocol}://" for protocol in PROTOCOLS)
        raise ValueError(f"it starts with one of {allowed}")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError(
            "it holds no user, password, ? or #; credentials come from the environment "
            "(AWS_PROFILE, AWS_ENDPOINT_URL, GOOGLE_APPLICATION_CREDENTIALS)"
        )
    if not parts.path.strip("/") and (parts.scheme != "memory" or not parts.netloc):
        raise ValueError("it names a folder, as in s3://BUCKET/runs/NAME")
