"""Secrets of a job: it is told their names, and reads them itself when it starts.

Vertex AI stores the environment of a custom job in the clear, for everyone who may look at jobs.
So a variable holds a reference, ``secret:projects/P/secrets/S/versions/V``, and the process that
trains replaces it by the value, which Secret Manager gives to the job's service account.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
from collections.abc import MutableMapping
from typing import Any

from classifier_training.errors import ConfigError

REFERENCE = "secret:"
_NAME = re.compile(r"projects/[\w:.-]+/secrets/[\w-]+(/versions/(latest|\d+))?")
# https://cloud.google.com/compute/docs/metadata/querying-metadata; the variable is Google's own.
_METADATA = "http://" + os.environ.get("GCE_METADATA_HOST", "metadata.google.internal")
_ACCOUNT = "/computeMetadata/v1/instance/service-accounts/default"
# https://cloud.google.com/secret-manager/docs/reference/rest/v1/projects.secrets.versions/access
_API = "https://secretmanager.googleapis.com"
_SECONDS = 10.0


def check_reference(variable: str, secret: str) -> str:
    """Return the full name of a secret's version; nothing that looks like a value is repeated.

    Raises:
        ConfigError: It is not the name of one.
    """
    if not _NAME.fullmatch(secret):
        raise ConfigError(
            f"--secret {variable}=... is not the name of a secret",
            expected=f"--secret {variable}=projects/PROJECT/secrets/NAME[/versions/latest]; the "
            "value itself stays in Secret Manager",
            fix=f"gcloud secrets create NAME --data-file=-, then --secret {variable}=projects/"
            "PROJECT/secrets/NAME",
        )
    return secret if "/versions/" in secret else f"{secret}/versions/latest"


def resolve(
    environment: MutableMapping[str, str], *, metadata: str = _METADATA, api: str = _API
) -> None:
    """Replace references in the environment by the secrets they name.

    Args:
        environment: Changed in place.
        metadata: Address of the machine's metadata server.
        api: Address of Secret Manager.

    Raises:
        ConfigError: A secret cannot be read; its name is told.
    """
    wanted = {
        variable: value.removeprefix(REFERENCE)
        for variable, value in environment.items()
        if value.startswith(f"{REFERENCE}projects/")
    }
    if not wanted:
        return
    first = next(iter(wanted.values()))
    token = _ask(f"{metadata}{_ACCOUNT}/token", {"Metadata-Flavor": "Google"}, first)[
        "access_token"
    ]
    for variable, secret in wanted.items():
        answer = _ask(f"{api}/v1/{secret}:access", {"Authorization": f"Bearer {token}"}, secret)
        try:
            environment[variable] = base64.b64decode(answer["payload"]["data"]).decode()
        except (KeyError, TypeError, binascii.Error, UnicodeDecodeError) as error:
            raise _unreadable(secret, "the answer holds no text") from error


def _ask(url: str, headers: dict[str, str], secret: str) -> dict[str, Any]:
    import urllib.request  # only jobs with secrets pay for it, not every start of a training

    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - addresses of ours
    try:
        with urllib.request.urlopen(request, timeout=_SECONDS) as answer:  # noqa: S310
            content: dict[str, Any] = json.load(answer)
    except (OSError, ValueError) as error:
        raise _unreadable(secret, str(error)) from error
    return content


def _unreadable(secret: str, why: str) -> ConfigError:
    return ConfigError(
        f"the secret {secret} cannot be read: {why}",
        expected="a job on Google Cloud whose service account may access it",
        fix="grant the role roles/secretmanager.secretAccessor to the job's service account, and "
        "look at the name; elsewhere, set the variable itself",
    )
