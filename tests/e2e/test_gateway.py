# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The front door from outside: whom it lets in, what it says, whose certificate it shows, when it has had enough."""

from __future__ import annotations

import json

import pytest
import yaml
from labnodes import ROOT

LAB_LAYER = {
    "services": {"message_bus+": "nats", "monitoring": ["prometheus", "alertmanager", "node_exporter"]},
}
PUBLIC_NAME = "node.example.org"
DIRECTORY = "acme.example.org"

# Run on a client node: one JSON row for each request.
ASK = """
import base64, http.client, json, ssl, sys
address, port, times, path, server, password = sys.argv[1:7]
context = ssl.create_default_context(cafile="/tmp/ca.crt")
headers = {"Host": server}
if password != "-":
    headers["Authorization"] = "Basic " + base64.b64encode(f"kos:{password}".encode()).decode()
connection = http.client.HTTPSConnection(address, int(port), timeout=5, context=context)
rows = []
for _ in range(int(times)):
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    body = answer.read().decode(errors="replace")
    said = {name.lower(): value for name, value in answer.getheaders()}
    rows.append({"status": answer.status, "headers": said, "body": body[:4000]})
    if answer.getheader("Connection") == "close":
        connection.close()
print(json.dumps(rows))
"""

HOLD = """
import socket, sys
held, dropped = [], 0
while len(held) < int(sys.argv[2]) and dropped < 2:
    try:
        held.append(socket.create_connection((sys.argv[1], 443), 1.5))
    except OSError:
        dropped += 1
print(len(held), dropped, flush=True)
sys.stdin.read()
"""

# Asks NATS as the user kos, with the certificate of a directory ("-": none).
NATS = """
import json, socket, ssl, sys
raw = socket.create_connection(("127.0.0.1", 4222), 5)
assert json.loads(raw.recv(4096)[5:])["tls_required"]
context = ssl.create_default_context(cafile="/tmp/good/ca.crt")
if sys.argv[1] != "-":
    context.load_cert_chain(f"{sys.argv[1]}/tls.crt", f"{sys.argv[1]}/tls.key")
try:
    tls = context.wrap_socket(raw, server_hostname="localhost")
    tls.sendall(b'CONNECT {"verbose":true,"user":"kos","pass":"%s"}\\r\\nPING\\r\\n' % sys.stdin.read().encode())
    print(tls.version(), tls.recv(100))
except OSError as error:
    print("refused:", error)
"""

MAKE_CERTIFICATES = """
set -e; umask 077; mkdir -p /tmp/good /tmp/foreign
sh /etc/kos/certificates/client.sh probe /tmp/good
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=foreign \
    -keyout /tmp/foreign/tls.key -out /tmp/foreign/tls.crt 2>/dev/null
"""


def secret(name):
    return f"systemd-creds decrypt --name=kos-{name} /var/lib/kos/secrets/{name}.cred -"


class Client:
    """A node that asks another one."""

    def __init__(self, lab, name, node, address):
        self.lab, self.name, self.node, self.address = lab, name, node, address
        for file, text in (("ask", ASK), ("hold", HOLD)):
            lab.ssh(name, f"cat > /tmp/{file}.py <<'EOF'\n{text}\nEOF")
        self.trust(lab.ssh(node, "cat /var/lib/kos-certificates/ca.crt"))

    def trust(self, certificate):
        self.lab.ssh(self.name, f"cat > /tmp/ca.crt <<'EOF'\n{certificate}\nEOF")

    def ask(self, path, known="-", times=1, port=443):
        argv = f"{self.address} {port} {times} '{path}' {self.node} {known}"
        rows = json.loads(self.lab.ssh(self.name, f"python3 /tmp/ask.py {argv}"))
        return rows[0] if times == 1 else rows


def address_of(lab, node):
    return lab.ssh(node, "ip -o -4 address show scope global").split()[3].split("/")[0]


@pytest.fixture(scope="module")
def client(lab, deployed):
    lab.kai("lab", "up", "client")
    yield Client(lab, "client", deployed, address_of(lab, deployed))
    lab.kai("lab", "down", "client")


@pytest.fixture(scope="module")
def other(lab, deployed):
    lab.kai("lab", "up", "other")
    yield Client(lab, "other", deployed, address_of(lab, deployed))
    lab.kai("lab", "down", "other")


@pytest.fixture(scope="module")
def password(lab, deployed):
    return lab.ssh(deployed, secret("status.operator_password"))


def door_is_as_it_must_be(lab, client, password):
    """What holds for either gateway."""
    page = client.ask("/")
    assert page["status"] == 200 and "services are healthy" in page["body"]
    assert [client.ask("/prometheus/graph", given)["status"] for given in ("-", "wrong", password)] == [401, 401, 200]
    answer = client.ask("/prometheus/api/v1/query?query=min(up)", password)
    assert json.loads(answer["body"])["data"]["result"][0]["value"][1] in ("0", "1")
    assert client.ask("/alertmanager/", password)["status"] == 200
    assert client.ask("/nats/varz", password)["status"] == 404
    assert client.ask("/prometheus")["status"] == 401
    for shown in (
        page,
        client.ask("/prometheus/graph"),
        client.ask("/prometheus/graph", password),
        client.ask("/none"),
    ):
        headers = shown["headers"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer"
        assert "camera=()" in headers["permissions-policy"] and "server" not in headers
        assert headers["strict-transport-security"].startswith("max-age=")
    old = f"openssl s_client -connect {client.address}:443 -tls1_2 </dev/null 2>&1 | grep -c 'alert protocol version'"
    assert lab.ssh(client.name, old) == "1"


def gateway_of(lab, node):
    running = lab.ssh(node, "systemctl is-active kos-caddy kos-nginx", check=False).split()
    return {("active", "inactive"): "caddy", ("inactive", "active"): "nginx"}[tuple(running)]


def test_caddy_lets_in_who_knows_the_password_and_says_what_it_must(lab, deployed, client, password):
    assert gateway_of(lab, deployed) == "caddy"
    door_is_as_it_must_be(lab, client, password)


def test_services_take_certificates_of_the_nodes_authority_only(lab, deployed):
    lab.ssh(deployed, MAKE_CERTIFICATES)
    lab.ssh(deployed, f"cat > /tmp/nats.py <<'EOF'\n{NATS}\nEOF")
    said = {
        name: lab.ssh(deployed, f"{secret('nats.password')} | python3 /tmp/nats.py {name}")
        for name in ("-", "/tmp/foreign", "/tmp/good")
    }
    assert "certificate required" in said["-"] and "unknown ca" in said["/tmp/foreign"]
    assert said["/tmp/good"].startswith("TLSv1.3") and "PONG" in said["/tmp/good"]

    def psql(settings):
        query = "select version from pg_stat_ssl where pid = pg_backend_pid()"
        command = f"psql -XAtq 'host=127.0.0.1 user=kos dbname=kos {settings}' -c '{query}' 2>&1"
        return lab.ssh(deployed, f"PGPASSWORD=$({secret('postgresql.password')}) {command}", check=False)

    assert "requires a valid client certificate" in psql("sslmode=require")
    assert "no encryption" in psql("sslmode=disable")
    assert "unknown ca" in psql("sslmode=require sslcert=/tmp/foreign/tls.crt sslkey=/tmp/foreign/tls.key")
    good = "sslmode=verify-full sslrootcert=/tmp/good/ca.crt sslcert=/tmp/good/tls.crt sslkey=/tmp/good/tls.key"
    assert psql(good) == "TLSv1.3"


def test_a_certificate_near_its_end_is_made_anew_and_its_daemon_restarted(lab, deployed):
    """What the timer does: here the certificate is made to look like one of another name."""
    shown = "systemctl show -P MainPID kos-nats; openssl x509 -noout -serial -in /var/lib/kos-certificates/nats.crt"
    before = lab.ssh(deployed, shown).split()
    lab.ssh(deployed, "echo x > /var/lib/kos-certificates/nats.asked; systemctl start kos-certificates-renew.service")
    lab.ssh(deployed, "timeout 20 sh -c 'until systemctl is-active --quiet kos-nats; do sleep 0.2; done'")
    after = lab.ssh(deployed, shown).split()
    assert before[0] != after[0] and before[1] != after[1]
    lab.ssh(deployed, "systemctl start kos-certificates-renew.service")
    assert lab.ssh(deployed, shown).split() == after
    everybodys = "find /var/lib/kos-certificates -perm /077 -name '*.key'; stat -c %U:%a /var/lib/kos-certificates"
    assert lab.ssh(deployed, everybodys) == "kos-certificates:700"


def test_nginx_in_its_place_is_the_same_door_and_counts_requests(lab, deployed, client, other, password):
    lab.deploy(deployed, "--site", "lab-gateway")
    assert gateway_of(lab, deployed) == "nginx"
    door_is_as_it_must_be(lab, client, password)
    answers = client.ask("/status.json", times=80)
    refused = [row["status"] for row in answers].count(429)
    assert 20 <= refused <= 60, refused
    assert other.ask("/")["status"] == 200
    # The load balancer passes on who asks, and counts on its own.
    balanced = [row["status"] for row in other.ask("/healthz", times=200, port=8443)]
    assert balanced[:20] == [200] * 20 and balanced[-1] == 429
    assert client.ask("/healthz", port=8443)["status"] == 200


def test_too_many_connections_of_one_client_are_dropped_and_others_feel_nothing(lab, deployed, client, other):
    held = lab.ssh(client.name, f"(sleep 8) | python3 /tmp/hold.py {client.address} 60 & sleep 7; wait")
    # 50 is the layer's limit.
    assert [int(word) for word in held.split()] == [50, 2]
    lab.ssh(client.name, f"systemd-run --quiet --unit=hold sh -c 'sleep 12 | python3 /tmp/hold.py {client.address} 60'")
    lab.ssh(client.name, "sleep 5")
    assert other.ask("/healthz")["status"] == 200


def test_a_daemon_that_would_refuse_its_files_never_gets_them(lab, deployed, other, tmp_path):
    layer = yaml.safe_load((ROOT / "configs/overrides/lab-gateway.yaml").read_text())
    layer["networking"]["rate_limits"]["burst"] = 41
    (tmp_path / "changed.yaml").write_text(yaml.safe_dump(layer))
    module = "/usr/lib/nginx/modules/ngx_http_headers_more_filter_module.so"
    seen = "sha256sum /etc/kos/nginx/nginx.conf /etc/kos/haproxy/haproxy.cfg; systemctl show -P MainPID kos-nginx"
    before = lab.ssh(deployed, seen)
    lab.ssh(deployed, f"mv {module} {module}.away")
    try:
        done = lab.deploy(deployed, "--site", str(tmp_path / "changed.yaml"), check=False)
        assert done.returncode != 0
        assert "nginx refuses its new files" in " ".join((done.stdout + done.stderr).split())
        assert lab.ssh(deployed, seen) == before
        assert other.ask("/healthz")["status"] == 200
    finally:
        lab.ssh(deployed, f"mv {module}.away {module}")


def test_rolled_back_caddy_is_the_door_again(lab, deployed, other, password):
    lab.kai("rollback", "-i", "inventories/lab", "--limit", deployed)
    assert gateway_of(lab, deployed) == "caddy"
    assert other.ask("/prometheus/graph", password)["status"] == 200


PEBBLE = """
set -e
apt-get install -y -qq --no-install-recommends pebble openssl >/dev/null 2>&1 ||
    {{ apt-get update -qq; apt-get install -y -qq --no-install-recommends pebble openssl >/dev/null; }}
echo '{node} {name}' >> /etc/hosts
mkdir -p /etc/pebble; cd /etc/pebble
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=directory \
    -addext subjectAltName=DNS:{directory} -keyout key.pem -out cert.pem 2>/dev/null
cat > config.json <<'EOF'
{{"pebble": {{"listenAddress": "0.0.0.0:14000", "managementListenAddress": "127.0.0.1:15000", "httpPort": 80,
  "tlsPort": 443, "certificate": "/etc/pebble/cert.pem", "privateKey": "/etc/pebble/key.pem"}}}}
EOF
systemd-run --quiet --unit=pebble -E PEBBLE_VA_NOSLEEP=1 pebble -config /etc/pebble/config.json
timeout 20 sh -c 'until ss -tln | grep -q :14000; do sleep 0.2; done'
cat cert.pem
"""

CHAIN = """
import ssl, urllib.request
context = ssl._create_unverified_context()
for name in ("roots", "intermediates"):
    print(urllib.request.urlopen(f"https://127.0.0.1:15000/{name}/0", context=context).read().decode())
"""


def test_with_a_public_name_the_certificate_comes_by_acme(lab, deployed, other, tmp_path):
    node, authority = other.address, address_of(lab, other.name)
    certificate = lab.ssh(other.name, PEBBLE.format(node=node, name=PUBLIC_NAME, directory=DIRECTORY))
    lab.ssh(
        deployed,
        f"echo '{authority} {DIRECTORY}' >> /etc/hosts; cat > /usr/local/share/ca-certificates/directory.crt <<'EOF'\n"
        f"{certificate}\nEOF\nupdate-ca-certificates >/dev/null 2>&1",
    )
    acme = {"directory": f"https://{DIRECTORY}:14000/dir", "email": "admin@example.org"}
    layer = {**LAB_LAYER, "networking": {"public_name": PUBLIC_NAME, "acme": acme}}
    (tmp_path / "public.yaml").write_text(yaml.safe_dump(layer))
    lab.deploy(deployed, "--site", str(tmp_path / "public.yaml"))
    obtained = "journalctl -u kos-caddy | grep -q 'obtained successfully'"
    lab.ssh(deployed, f'timeout 40 sh -c "until {obtained}; do sleep 0.5; done"')
    lab.ssh(other.name, f"cat > /tmp/chain.py <<'EOF'\n{CHAIN}\nEOF\npython3 /tmp/chain.py > /tmp/chain.pem")
    show = f"openssl s_client -connect {PUBLIC_NAME}:443 -servername {PUBLIC_NAME} -verify_hostname {PUBLIC_NAME}"
    said = lab.ssh(other.name, f"{show} -CAfile /tmp/chain.pem -verify_return_error </dev/null 2>&1")
    assert "Verify return code: 0 (ok)" in said and "Pebble Intermediate" in said
    # By its own name the node still shows its own certificate.
    assert other.ask("/healthz")["status"] == 200
