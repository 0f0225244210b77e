"""Hooks for schemathesis: requests are signed as docs/protocol.md says, and half of the ids are of what is there.

Variables: DEVICE_KEY (the file with the key's seed, hexadecimal), AUTHORITY, BUNDLES and MAILBOXES (words).
"""

import base64
import hashlib
import os
import random
import secrets
import time
from urllib.parse import urlsplit

import schemathesis
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

with open(os.environ["DEVICE_KEY"], encoding="ascii") as file:
    KEY = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(file.read().strip()))
KEY_ID = base64.b64encode(KEY.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()
AUTHORITY = os.environ["AUTHORITY"]
THERE = {"bundle": os.environ["BUNDLES"].split(), "mailbox": os.environ["MAILBOXES"].split(), "part": ["0", "1"]}
ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
AGE = b"age-encryption.org/v1\n"


def nonce():
    value = int.from_bytes(secrets.token_bytes(16), "big") << 2
    return "".join(ALPHABET[value >> shift & 31] for shift in range(125, -1, -5))


class Signature:
    """An authentication for the library `requests`: it sees the request as it goes out."""

    def __call__(self, request):
        body = request.body or b""
        if isinstance(body, str):
            body = body.encode()
        target = urlsplit(request.url)
        part = request.headers.get("Pouch-Part")
        covered = ""
        lines = [
            f'"@method": {request.method}',
            f'"@authority": {AUTHORITY}',
            f'"@path": {target.path}',
            f'"@query": ?{target.query}',
        ]
        if part is not None:
            covered = ' "pouch-part"'
            lines.append(f'"pouch-part": {part}')
        elif body:
            digest = "sha-256=:" + base64.b64encode(hashlib.sha256(body).digest()).decode() + ":"
            # Now and then a digest of something else, as it was made.
            if random.random() < 0.9:
                request.headers["Content-Digest"] = digest
            covered = ' "content-digest"'
            lines.append(f'"content-digest": {request.headers.get("Content-Digest", digest)}')
        parameters = (
            f'("@method" "@authority" "@path" "@query"{covered});created={int(time.time())};nonce="{nonce()}"'
            f';keyid="{KEY_ID}";alg="ed25519";tag="pouch.v1"'
        )
        lines.append(f'"@signature-params": {parameters}')
        signature = base64.b64encode(KEY.sign("\n".join(lines).encode("utf-8", "replace"))).decode()
        request.headers["Signature-Input"] = f"pouch={parameters}"
        request.headers["Signature"] = f"pouch=:{signature}:"
        return request


schemathesis.auth.set_from_requests(Signature())


@schemathesis.hook
def map_path_parameters(context, path_parameters):
    """What is there, half of the time; the rest stays as it was made up."""
    for name, values in THERE.items():
        if path_parameters and name in path_parameters and values and random.random() < 0.5:
            path_parameters[name] = random.choice(values)
    return path_parameters


@schemathesis.hook
def map_query(context, query):
    """Nobody waits a minute for a delivery that does not come."""
    if query and str(query.get("wait")).isdigit():
        query["wait"] = min(int(query["wait"]), 1)
    return query


@schemathesis.hook
def map_headers(context, headers):
    """Fields that are HTTP (RFC 9110, section 5.5): others end in its parser, before there is a request to describe."""
    for name, value in (headers or {}).items():
        headers[name] = "".join(c for c in str(value) if c.isprintable()).strip()
    return headers


@schemathesis.hook
def map_body(context, body):
    """Sealed objects begin as age files do, half of the time; ids in messages are of what is there now and then."""
    if isinstance(body, bytes) and random.random() < 0.5:
        return AGE + body
    if isinstance(body, dict) and "bundle" in body and THERE["bundle"] and random.random() < 0.3:
        body["bundle"] = random.choice(THERE["bundle"])
    return body
