"""A throw-away certificate authority, with a server's and a client's certificate."""

import subprocess
from pathlib import Path


def make(folder):
    """Fills a folder with ca-cert.pem, server-cert.pem, client-cert.pem and their keys."""
    folder = Path(folder)
    openssl(folder, "req", "-x509", *KEY, "-keyout", "ca-key.pem", "-out", "ca-cert.pem", "-subj", "/CN=test ca", "-days", "2")
    for name in ("server", "client"):
        openssl(folder, "req", *KEY, "-keyout", f"{name}-key.pem", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        (folder / f"{name}.ext").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
        signing = ["-CA", "ca-cert.pem", "-CAkey", "ca-key.pem", "-CAcreateserial", "-days", "2", "-extfile", f"{name}.ext"]
        openssl(folder, "x509", "-req", "-in", f"{name}.csr", *signing, "-out", f"{name}-cert.pem")


KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]


def openssl(folder, *arguments):
    done = subprocess.run(["openssl", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"openssl {arguments[0]}: {done.stderr}")
