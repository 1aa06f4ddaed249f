"""The installations that are rendered, by name."""

from __future__ import annotations

from typing import Any

from tests.chart import helm

PEOPLE = '{"c4n4ry-token": {"name": "ada", "courses": {"physics": "Instructor"}}}'

MARIADB: dict[str, Any] = {
    "db": {"url": "mysql://nbexchange:c4n4ry@db.example.org/nbexchange"},
}
POSTGRESQL_AND_S3: dict[str, Any] = {
    "replicas": 3,
    "db": {"existingSecret": "database", "existingSecretKey": "url"},
    "storage": {
        "url": "s3://bucket/prefix",
        "options": {"endpoint": "https://s3.example.org", "region": "eu-1"},
        "existingSecret": "bucket",
    },
}
ALONE: dict[str, Any] = {"hub": {"enabled": False}, "tokenFile": {"inline": PEOPLE}}

CASES: dict[str, dict[str, Any]] = {
    # The smallest values: none. Below Zero to JupyterHub, with SQLite on a disk of its own.
    "defaults": {},
    "everything": helm.read("everything.yaml"),
    "mariadb": MARIADB,
    "postgresql-s3-3-replicas": POSTGRESQL_AND_S3,
    "postgresql-shared-disk": {
        "replicas": 2,
        "db": {"existingSecret": "database"},
        "persistence": {"accessMode": "ReadWriteMany", "storageClass": "-"},
    },
    "autoscaling": helm.changed(POSTGRESQL_AND_S3, autoscaling={"enabled": True}),
    "hub-of-another-name": {
        "baseUrl": "/jupyter/services/exchange/",
        "hub": {
            "serviceName": "exchange",
            "apiUrl": "http://hub:8081/jupyter/hub/api",
            "existingSecret": "tokens",
            "existingSecretKey": "exchange",
        },
    },
    "without-a-hub": ALONE,
    "bare": {
        "networkPolicy": {"enabled": False},
        "pdb": {"enabled": False},
        "serviceAccount": {"create": False},
        "securityContext": {"runAsUser": None, "runAsGroup": None, "fsGroup": None},
        "persistence": {"existingClaim": "claim"},
    },
    "many-more-labels": {
        "podLabels": {"app.kubernetes.io/name": "another", "team": "a"},
        "podAnnotations": {"checksum/config": "mine"},
        "persistence": {"annotations": {"helm.sh/resource-policy": "delete"}},
        "metrics": {
            "serviceMonitor": {"enabled": True, "labels": {"helm.sh/chart": "mine"}},
            "prometheusRule": {"enabled": True, "labels": {"helm.sh/chart": "mine"}},
        },
    },
}
