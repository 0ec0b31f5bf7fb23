# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Message bus, cluster, directory, long-term figures, log and file database: asked by their own clients.

Each is used, backed up, damaged and restored; what was lost must be back.
"""

from __future__ import annotations

import json
import shlex
import time

import pytest

NODE = "python3 -I -B /var/lib/kos/current/node"
ETCD = "etcdctl --endpoints=127.0.0.1:2379"
PATRONI = "patronictl -c /run/credentials/kos-patroni.service/patroni"
PSQL = "runuser -u kos-postgresql -- psql -XAtq -v ON_ERROR_STOP=1 -h /run/kos-postgresql -U postgres -d kos -c"
BASE = "dc=kos,dc=internal"
SOCKET = "ldapi://%2Frun%2Fkos-slapd%2Fldapi/"
METRICS = "http://127.0.0.1:8428"
SQLITE = "runuser -u kos-sqlite -- sqlite3 -batch /var/lib/kos-sqlite/kai.db"
FETCH = """
import sys, urllib.request
data = sys.argv[2].encode() if len(sys.argv) > 2 else None
print(urllib.request.urlopen(sys.argv[1], data, timeout=20).read().decode())
"""


def fetch(host, *arguments):
    """What an address answers on the node; with a second argument, to that as a POST."""
    return host.check_output(shlex.join(["python3", "-c", FETCH, *arguments]))


def secret(name):
    """A secret of the node, for a shell there to put in: it is in no argument of a process, here or on the node."""
    return f'"$(systemd-creds decrypt --name=kos-{name} /var/lib/kos/secrets/{name}.cred -)"'


def eventually(condition, seconds=90):
    """What `condition` returns as soon as that is true; its last answer after `seconds`."""
    end = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < end:
        time.sleep(0.5)
    return found


@pytest.fixture
def drill(host):
    """Back up a service, damage it, restore it."""
    folders = []

    def run(service, user, damage):
        folder = f"/var/tmp/kos-drill-{service}"
        folders.append(folder)
        host.check_output(f"rm -rf {folder}; install -d -o {user} -m 0700 {folder}")
        host.check_output(f"{NODE} backup {service} {folder}")
        damage()
        host.check_output(f"{NODE} restore {service} {folder}")

    yield run
    for folder in folders:
        host.check_output(f"rm -rf {folder}")


class Mqtt:
    """Mosquitto's own clients, logged in as kos; the password is in their configuration file, not in argv."""

    def __init__(self, host):
        self.host = host
        form = r"'-u kos\n-P %s\n-h 127.0.0.1\n'"
        for program in ("pub", "sub"):
            host.check_output(
                "install -d -m 0700 /run/accept; umask 077;"
                f" printf -- {form} {secret('mosquitto.password')} > /run/accept/mosquitto_{program}"
            )

    def publish(self, topic, message, *options):
        argv = ["mosquitto_pub", "-t", topic, "-m", message, "-q", "1", *options]
        self.host.check_output(f"XDG_CONFIG_HOME=/run/accept {shlex.join(argv)}")

    def hear(self, topic, seconds=5):
        argv = ["mosquitto_sub", "-t", topic, "-C", "1", "-W", str(seconds)]
        return self.host.run(f"XDG_CONFIG_HOME=/run/accept {shlex.join(argv)}").stdout.strip()


@pytest.fixture
def mqtt(host, planned):
    planned("mosquitto")
    yield Mqtt(host)
    host.check_output("rm -rf /run/accept")


def test_mqtt_carries_a_message_to_whoever_logs_in(host, mqtt):
    listener = "XDG_CONFIG_HOME=/run/accept mosquitto_sub -t accept/live -C 1 -W 20"
    sender = "sleep 1; XDG_CONFIG_HOME=/run/accept mosquitto_pub -t accept/live -m hello"
    assert host.check_output(f"({sender}) & {listener}") == "hello"


@pytest.mark.parametrize("login", ["", "-u kos -P wrong", "-u other -P x"])
def test_mqtt_takes_nobody_else(host, mqtt, login):
    refused = host.run(f"mosquitto_pub -h 127.0.0.1 {login} -t accept/live -m hello")
    assert refused.rc != 0 and "not authorised" in refused.stderr.lower()


def test_retained_messages_come_back_from_a_backup(host, mqtt, drill):
    mqtt.publish("accept/kept", "precious", "-r")
    drill("mosquitto", "kos-mosquitto", lambda: mqtt.publish("accept/kept", "spoilt", "-r"))
    assert eventually(lambda: mqtt.hear("accept/kept")) == "precious"
    mqtt.publish("accept/kept", "", "-r")


@pytest.fixture
def etcd(host, planned):
    """Run etcdctl as kos."""
    planned("etcd")
    login = f"ETCDCTL_USER=kos:{secret('etcd.kos')}"
    return lambda command: host.check_output(f"{login} {ETCD} {command}")


def test_etcd_keeps_a_value_for_whoever_may(host, etcd):
    etcd("put /kos/accept 42")
    assert etcd("get --print-value-only /kos/accept") == "42"
    assert host.run(f"{ETCD} get /kos/accept").rc != 0, "without a login"
    login = f"ETCDCTL_USER=kos:{secret('etcd.kos')}"
    assert "permission denied" in host.run(f"{login} {ETCD} put /patroni/kos/leader me").stderr


def test_etcd_comes_back_from_a_backup(etcd, drill):
    etcd("put /kos/accept precious")
    drill("etcd", "kos-etcd", lambda: (etcd("put /kos/accept spoilt"), etcd("put /kos/extra 1")))
    assert etcd("get --print-value-only /kos/accept") == "precious"
    assert etcd("get /kos/extra") == ""
    etcd("del /kos/accept")


def leads(host):
    """Whether Patroni says that this node's PostgreSQL leads."""
    return host.run(shlex.join(["python3", "-c", FETCH, "http://127.0.0.1:8008/primary"])).rc == 0


def query(host, statement):
    return host.check_output(f"{PSQL} {shlex.quote(statement)}")


def test_patroni_leads_and_writes_survive_its_restart(host, planned):
    planned("patroni")
    member = json.loads(fetch(host, "http://127.0.0.1:8008/primary"))
    assert (member["role"], member["state"]) == ("primary", "running")
    query(host, "DROP TABLE IF EXISTS accept; CREATE TABLE accept AS SELECT 42 AS answer")
    started = query(host, "SELECT pg_postmaster_start_time()")
    host.check_output(f"{PATRONI} restart --force kos")
    assert eventually(lambda: leads(host))
    assert query(host, "SELECT pg_postmaster_start_time()") != started
    assert query(host, "SELECT answer FROM accept") == "42"
    query(host, "DROP TABLE accept")


def test_patroni_is_moved_by_nobody_without_its_password(host, planned):
    planned("patroni")
    assert host.run(shlex.join(["python3", "-c", FETCH, "http://127.0.0.1:8008/restart", "{}"])).rc != 0


def test_patroni_takes_the_place_of_postgresql(host, planned, manifest):
    planned("patroni")
    assert "postgresql" not in [service["name"] for service in manifest["services"]]
    folder = "/run/accept.kos"
    host.check_output(f"install -d -m 0700 {folder}; sh /etc/kos/certificates/client.sh accept {folder}")
    tls = f"sslmode=verify-ca sslrootcert={folder}/ca.crt sslcert={folder}/tls.crt sslkey={folder}/tls.key"
    for given, known in ((f"{tls}", True), ("sslmode=require", False)):
        target = shlex.quote(f"host=127.0.0.1 user=kos dbname=kos {given}")
        asked = host.run(f"PGPASSWORD={secret('patroni.password')} psql -XAtq {target} -c 'SELECT current_user'")
        assert (asked.stdout.strip() == "kos") is known, asked.stderr
    host.check_output(f"rm -r {folder}")
    if "pgvector" in [service["name"] for service in manifest["services"]]:
        assert query(host, "SELECT '[1,2,3]'::vector <-> '[1,2,4]'") == "1"


def test_patroni_keeps_writing_while_etcd_is_away(host, planned):
    planned("patroni")
    host.check_output("systemctl stop kos-etcd")
    try:
        time.sleep(25)
        assert query(host, "CREATE TABLE away AS SELECT 1 AS n; SELECT n FROM away") == "1"
    finally:
        host.check_output("systemctl start kos-etcd")
    assert eventually(lambda: leads(host))
    query(host, "DROP TABLE away")


def test_patroni_comes_back_from_a_backup(host, planned, drill):
    planned("patroni")
    query(host, "DROP TABLE IF EXISTS precious; CREATE TABLE precious AS SELECT 42 AS answer")
    drill("patroni", "kos-postgresql", lambda: query(host, "DROP TABLE precious"))
    assert query(host, "SELECT answer FROM precious") == "42"
    query(host, "DROP TABLE precious")


class Directory:
    """OpenLDAP's own clients; passwords come from files."""

    def __init__(self, host):
        self.host = host
        host.check_output(
            f"umask 077; printf %s {secret('slapd.password')} > /run/accept.admin; printf %s secret > /run/accept.ada"
        )

    def run(self, tool, who, *arguments, text=""):
        name = {"admin": f"cn=admin,{BASE}", "ada": f"uid=ada,ou=people,{BASE}"}[who]
        argv = [tool, "-x", "-H", SOCKET, "-D", name, "-y", f"/run/accept.{who}", *arguments]
        return self.host.run(f"printf %s {shlex.quote(text)} | {shlex.join(argv)}")

    def add_ada(self):
        entry = (
            f"dn: uid=ada,ou=people,{BASE}\nobjectClass: inetOrgPerson\nuid: ada\ncn: Ada\nsn: L\n"
            "mail: ada@example.org\n"
        )
        added = self.run("ldapadd", "admin", text=entry)
        assert added.rc in (0, 68), added.stderr
        done = self.run("ldappasswd", "admin", "-s", "secret", f"uid=ada,ou=people,{BASE}")
        assert done.rc == 0, done.stderr


@pytest.fixture
def directory(host, planned):
    planned("slapd")
    made = Directory(host)
    made.add_ada()
    yield made
    made.run("ldapdelete", "admin", f"uid=ada,ou=people,{BASE}")
    host.check_output("rm -f /run/accept.admin /run/accept.ada")


def test_a_person_logs_in_and_finds_others(host, directory):
    assert directory.run("ldapwhoami", "ada").stdout.strip() == f"dn:uid=ada,ou=people,{BASE}"
    found = directory.run("ldapsearch", "ada", "-LLL", "-b", BASE, "(mail=ada@example.org)", "cn", "userPassword")
    assert "cn: Ada" in found.stdout and "userPassword" not in found.stdout
    hashed = directory.run("ldapsearch", "admin", "-LLL", "-o", "ldif-wrap=no", "-b", BASE, "(uid=ada)", "userPassword")
    packed = hashed.stdout.split("userPassword:: ")[1].split()[0]
    assert host.check_output(f"echo {packed} | base64 -d").startswith("{ARGON2}$argon2id")


def test_the_directory_shows_nothing_to_a_visitor(host, directory):
    found = host.run(f"ldapsearch -x -LLL -H ldap://127.0.0.1 -b {BASE}")
    assert "ada" not in found.stdout and "people" not in found.stdout
    change = f"dn: uid=ada,ou=people,{BASE}\nchangetype: modify\nreplace: cn\ncn: Eve\n"
    denied = directory.run("ldapmodify", "ada", text=change)
    assert denied.rc == 50
    wrong = host.run(f"ldapwhoami -x -H {SOCKET} -D cn=admin,{BASE} -w wrong")
    assert wrong.rc == 49


def test_the_directory_comes_back_from_a_backup(directory, drill):
    def damage():
        assert directory.run("ldapdelete", "admin", f"uid=ada,ou=people,{BASE}").rc == 0

    drill("slapd", "kos-slapd", damage)
    assert eventually(lambda: directory.run("ldapwhoami", "ada").stdout.strip()) == f"dn:uid=ada,ou=people,{BASE}"


def figure(host, name):
    """The last value, fresh ones too: by default a query leaves out what is younger than 30 seconds."""
    address = f"{METRICS}/api/v1/query?query=last_over_time({name}[1h])&latency_offset=1ms&nocache=1"
    answer = host.run(shlex.join(["python3", "-c", FETCH, address]))
    found = json.loads(answer.stdout)["data"]["result"] if answer.rc == 0 else []
    return found[0]["value"][1] if found else None


def test_figures_are_taken_in_and_found(host, planned):
    planned("victoriametrics")
    fetch(host, f"{METRICS}/api/v1/import/prometheus", 'accept_figure{from="test"} 42\n')
    assert eventually(lambda: figure(host, "accept_figure")) == "42"
    deletion = f"{METRICS}/api/v1/admin/tsdb/delete_series?match[]=accept_figure"
    assert host.run(shlex.join(["python3", "-c", FETCH, deletion])).rc != 0, "whoever deletes needs a key"


def test_prometheus_hands_its_figures_on(host, planned):
    planned("victoriametrics")
    planned("prometheus")
    assert eventually(lambda: figure(host, 'up{job="prometheus"}'.replace('"', "%22"))) == "1"


def test_figures_come_back_from_a_backup(host, planned, drill):
    planned("victoriametrics")
    fetch(host, f"{METRICS}/api/v1/import/prometheus", "accept_precious 7\n")
    assert eventually(lambda: figure(host, "accept_precious")) == "7"

    def damage():
        host.check_output(
            "systemctl stop kos-victoriametrics; rm -rf /var/lib/kos-victoriametrics/data;"
            " systemctl start kos-victoriametrics"
        )

    drill("victoriametrics", "kos-victoriametrics", damage)
    assert eventually(lambda: figure(host, "accept_precious")) == "7"


def logged(host, text):
    return host.run(
        f"journalctl --directory=/var/lib/kos-journal --quiet -o cat -t accept -g {text} -n 1"
    ).stdout.strip()


def test_a_log_line_arrives_in_the_store(host, planned):
    planned("journal")
    text = f"line-{time.time_ns()}"
    host.check_output(f"logger -t accept {text}")
    assert eventually(lambda: logged(host, text)) == text


def test_the_log_comes_back_from_a_backup(host, planned, drill):
    planned("journal")
    text = f"precious-{time.time_ns()}"
    host.check_output(f"logger -t accept {text}")
    assert eventually(lambda: logged(host, text)) == text

    def damage():
        host.check_output("systemctl stop kos-journal; rm -f /var/lib/kos-journal/*; systemctl start kos-journal")
        assert logged(host, text) == ""

    drill("journal", "kos-journal", damage)
    assert eventually(lambda: logged(host, text)) == text


def test_the_log_forgets_what_is_too_old(host, planned):
    """A file made to look 200 days old goes when the receiver starts; younger ones stay."""
    planned("journal")
    store = "/var/lib/kos-journal"
    old = (int(time.time()) - 200 * 86400) * 1_000_000
    name = f"{store}/remote-old@{'0' * 31}1-{1:016x}-{old:016x}.journal"
    text = f"young-{time.time_ns()}"
    host.check_output(f"logger -t accept {text}")
    assert eventually(lambda: logged(host, text)) == text
    newest = host.check_output(f"systemctl stop kos-journal; ls -t {store}/*.journal").split()[0]
    host.check_output(f"cp -a {newest} {name}; touch -d '200 days ago' {name}; systemctl start kos-journal")
    assert eventually(lambda: not host.file(name).exists)
    assert logged(host, text) == text
    archived = host.check_output(f"ls {store}").split()
    assert [name for name in archived if "@" in name], archived


def sqlite(host, statement):
    return host.check_output(f"{SQLITE} {shlex.quote(statement)}")


def test_sqlite_keeps_rows_and_a_backup_of_them(host, planned, drill):
    planned("sqlite")
    assert sqlite(host, "PRAGMA journal_mode") == "wal"
    sqlite(host, "CREATE TABLE IF NOT EXISTS accept (n); DELETE FROM accept; INSERT INTO accept VALUES (42)")

    def damage():
        host.check_output("dd if=/dev/urandom of=/var/lib/kos-sqlite/kai.db bs=4096 count=2 conv=notrunc status=none")
        assert host.run("systemctl restart kos-sqlite").rc != 0, "a damaged database must be noticed"

    drill("sqlite", "kos-sqlite", damage)
    host.check_output("systemctl restart kos-sqlite")
    assert sqlite(host, "SELECT n FROM accept") == "42"
    assert host.check_output("cat /run/kos-sqlite/checked") == "kai.db ok"
    sqlite(host, "DROP TABLE accept")
