# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the specification prints: seven profiles, two templates, five modes. Tests compare our files with it."""

from __future__ import annotations

from typing import Any

PROFILES: dict[str, dict[str, Any]] = {
    "development": {
        "profile": "development",
        "environment": "local",
        "services": {
            "llm_backend": "ollama",
            "vector_db": "chroma",
            "storage": "local_filesystem",
            "cache": "memory",
        },
        "security": {"vault": "local_encrypted", "auth": "development_mode", "tls": "self_signed"},
        "logging": {"level": "debug", "output": "console"},
        "networking": {"host": "localhost", "ports": {"api": 8000, "frontend": 3000, "vault": 3001}},
    },
    "browser_extension": {
        "profile": "browser_extension",
        "environment": "browser",
        "storage": {"type": "chrome_storage", "encryption": "web_crypto_api"},
        "services": {"local_only": True, "external_apis": "user_configured"},
        "security": {"content_security_policy": "strict", "permissions": "minimal_required"},
    },
    "desktop": {
        "profile": "desktop",
        "environment": "standalone",
        "services": {
            "llm_backend": "ollama",
            "vector_db": "qdrant",
            "storage": "local_filesystem",
            "database": "sqlite",
        },
        "security": {"vault": "encrypted_local", "auth": "biometric_optional", "auto_lock": True},
        "ui": {"theme": "system_preference", "window_state": "persistent", "tray_integration": True},
    },
    "personal_node": {
        "profile": "personal_node",
        "environment": "kos_personal",
        "orchestration": {"enabled": True, "agent_mesh": "local"},
        "services": {
            "llm_backends": ["ollama", "openai_compatible"],
            "vector_db": "qdrant",
            "graph_db": "neo4j_community",
            "message_bus": "redis",
            "storage": "encrypted_local",
        },
        "federation": {"klp_enabled": False, "discovery": "local_only"},
        "agents": {
            "core_agents": ["scheduler", "memory_manager", "task_planner"],
            "optional_agents": ["companion", "productivity", "creative"],
        },
    },
    "developer_node": {
        "profile": "developer_node",
        "environment": "kos_development",
        "orchestration": {"enabled": True, "agent_mesh": "full", "debugging": True},
        "services": {
            "llm_backends": ["ollama", "vllm", "openai_compatible"],
            "vector_db": "qdrant",
            "graph_db": "neo4j",
            "message_bus": "redis_cluster",
            "monitoring": ["prometheus", "grafana"],
        },
        "federation": {"klp_enabled": True, "test_network": True},
        "development": {
            "hot_reload": True,
            "agent_inspector": True,
            "memory_debugging": True,
            "trace_logging": "verbose",
        },
    },
    "federation_node": {
        "profile": "federation_node",
        "environment": "kos_federation",
        "orchestration": {"kubernetes": "optional", "agent_mesh": "federated", "load_balancing": True},
        "services": {
            "llm_backends": ["multiple_providers"],
            "vector_db": "weaviate_cluster",
            "graph_db": "dgraph",
            "message_bus": "nats_cluster",
        },
        "federation": {
            "klp_enabled": True,
            "public_registry": True,
            "trust_network": "community",
            "handshake_required": True,
        },
        "security": {
            "identity_verification": "required",
            "audit_logging": "comprehensive",
            "access_control": "rbac",
        },
        "scaling": {"horizontal": True, "auto_scale": True, "resource_limits": "configured"},
    },
    "enterprise": {
        "profile": "enterprise",
        "environment": "kos_enterprise",
        "orchestration": {"kubernetes": "required", "helm_charts": "kindos_enterprise", "service_mesh": "istio"},
        "services": {
            "llm_backends": ["enterprise_apis", "private_models"],
            "vector_db": "weaviate_enterprise",
            "graph_db": "neo4j_enterprise",
            "message_bus": "kafka_cluster",
            "databases": ["postgresql_cluster", "redis_enterprise"],
        },
        "federation": {"klp_enabled": True, "private_network": True, "enterprise_trust": "required"},
        "security": {
            "authentication": ["ldap", "saml", "oauth2"],
            "encryption": "end_to_end",
            "compliance": ["sox", "gdpr", "hipaa"],
        },
        "monitoring": {"observability": "full_stack", "alerting": "enterprise", "audit": "comprehensive"},
        "backup": {"strategy": "multi_region", "encryption": "required", "retention": "policy_based"},
    },
}

TEMPLATES: dict[str, dict[str, Any]] = {
    "security": {
        "security": {
            "authentication": {
                "methods": ["jwt", "oauth2", "biometric"],
                "session_timeout": 3600,
                "mfa_required": False,
            },
            "encryption": {"at_rest": "aes256", "in_transit": "tls13", "key_rotation": "enabled"},
            "access_control": {"type": "rbac", "default_deny": True, "audit_all": True},
            "compliance": {"frameworks": ["gdpr", "ccpa"], "data_retention": "90d", "audit_retention": "7y"},
        }
    },
    "monitoring": {
        "monitoring": {
            "metrics": {
                "prometheus": {"enabled": True, "retention": "30d"},
                "grafana": {"enabled": True, "dashboards": "kos_standard"},
            },
            "logging": {"loki": {"enabled": True, "retention": "90d"}, "elasticsearch": {"enabled": False}},
            "tracing": {"jaeger": {"enabled": True, "sampling_rate": 0.1}},
            "alerting": {"alertmanager": {"enabled": True, "routes": ["email", "slack", "pagerduty"]}},
        }
    },
}

# Cores, GB of memory, GB of disk, Mbit/s, GPU; features; where it leads.
MODES: dict[str, tuple[tuple[int, int, int, int, bool], list[str], list[str]]] = {
    "standalone": ((4, 8, 50, 10, False), ["ollama", "comfyui", "chroma", "local_vault"], ["server", "browser"]),
    "browser": ((2, 4, 2, 5, False), ["indexeddb", "chrome_storage", "webrtc"], ["standalone"]),
    "embedded": ((1, 1, 8, 1, False), ["mqtt", "klp", "voice_ui", "hardware_keys"], ["server"]),
    "server": (
        (8, 32, 500, 100, True),
        ["postgresql", "redis", "oauth2", "gpu_acceleration"],
        ["cluster", "standalone"],
    ),
    "cluster": ((32, 128, 2000, 1000, True), ["kubernetes", "nats", "envoy", "vault_provider"], ["server"]),
}

# Every option of the specification's StandaloneConfig, BrowserConfig and ServerConfig, and what a layer may write.
OPTIONS: dict[str, dict[str, Any]] = {
    "standalone": {
        "storage": {"db": "leveldb", "files": "~/kai", "maxSize": 100},
        "auth": {"mode": "local", "sessionTimeout": 3600},
        "services": {"ollama": {"enabled": True, "models": ["llama2"], "gpu": False}, "comfyui": False, "qdrant": True},
        "features": {"auto_update": False, "telemetry": False, "backup": True},
    },
    "browser": {
        "mode": "browser",
        "data_store": "indexeddb",
        "sync_with_kOS": True,
        "local_services": ["open-webui", "ollama"],
        "telemetry": False,
        "max_storage": 500,
    },
    "embedded": {"db": "leveldb", "mqtt": False, "klp": False, "voice_ui": True, "hardware_keys": True},
    "server": {
        "db_url": "postgresql://db.example/kos",
        "celery_broker": "redis://bus.example/0",
        "log_retention_days": 14,
        "auth_provider": "local",
        "vector_store": "chroma",
        "gpu_nodes": ["https://gpu1.example:8443"],
        "backup_schedule": "daily",
    },
    "cluster": {
        "orchestrator": "nomad",
        "message_bus": "kafka",
        "gateway": "caddy",
        "vault_provider": "openbao",
        "service_mesh": "istio",
        "autoscale": False,
        "nodes": ["n1", "n2"],
    },
}
