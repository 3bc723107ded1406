"""What no linter knows about docker-compose.yml; tools/check-compose runs it.

The argument is a folder with what `docker compose --profile P config --format json` prints for each profile P.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

STORES = {"etcd": "etcd", "consul": "consul"}
BUSES = {"nats": "nats", "kafka": "kafka"}
SAMPLES = ["payments-api", "ledger", "mailer"]
ONE_SHOT = re.compile(r"setup-.*|first-version")
# Containers that may write to their own file system: the image does at every start.
WRITABLE = {"kafka"}

wrong = []


def check(good, text):
    if not good:
        wrong.append(text)


def expected(profile):
    if profile == "servers":
        return {*STORES, *BUSES, "postgres"}
    store, bus = profile.split("-")
    return {store, bus, "postgres", f"setup-{profile}", "broadcaster", "first-version", *SAMPLES}


def variables_of_code():
    """Every ROTACAST_… and POOL_SERVICE_… that the programs read."""
    found = set()
    for folder in ("broadcaster", "cli", "subscriber-sdk", "tests/src"):
        for file in Path(folder).rglob("*.rs"):
            found.update(re.findall(r'"((?:ROTACAST|POOL_SERVICE)_[A-Z_]+)"', file.read_text()))
    return found


def check_service(profile, name, service, services, code):
    where = f"{profile}: {name}"
    one_shot = ONE_SHOT.fullmatch(name)

    check(service.get("cap_drop") == ["ALL"], f"{where}: keeps capabilities")
    check("no-new-privileges:true" in service.get("security_opt", []), f"{where}: may gain privileges")
    check("cap_add" not in service and not service.get("privileged"), f"{where}: has more than it needs")
    check(service.get("read_only") or name in WRITABLE, f"{where}: may write to its root")
    restart = "no" if one_shot else "unless-stopped"
    check(service.get("restart") == restart, f"{where}: expected restart: {restart}")
    for port in service.get("ports", []):
        check(port.get("host_ip") == "127.0.0.1", f"{where}: port {port.get('target')} is published beyond loopback")
        check(str(port.get("published")) == str(port.get("target")), f"{where}: port {port} changes its number")

    health = service.get("healthcheck")
    if one_shot:
        # `up --wait` waits for a health that never comes, unless another service waits for the end instead.
        waited_for = [
            other
            for other, it in services.items()
            if it.get("depends_on", {}).get(name, {}).get("condition") == "service_completed_successfully"
        ]
        check(waited_for, f"{where}: no service waits for its end, so `up --wait` would fail")
    else:
        check(health and health.get("test"), f"{where}: has no health check")
    for other, it in service.get("depends_on", {}).items():
        check(other in services or not it.get("required", True), f"{where}: depends on {other}, which is not there")

    image = service.get("image", "")
    tag = image.rpartition(":")[2]
    ours = tag == "local"
    check(ours or re.search(r"\d+\.\d+", tag), f"{where}: image {image!r} is not pinned")
    check(not ours or service.get("pull_policy") == "never", f"{where}: {image} could be pulled from somewhere")
    if ours:
        built = [it["build"]["target"] for it in services.values() if it.get("image") == image and "build" in it]
        check(len(built) == 1, f"{where}: expected one service that builds {image}, found {len(built)}")

    for variable in service.get("environment", {}):
        if variable.startswith(("ROTACAST_", "POOL_SERVICE_")):
            check(variable in code, f"{where}: nothing reads {variable}")
    for volume in service.get("volumes", []):
        if volume["type"] == "bind":
            check(Path(volume["source"]).is_file(), f"{where}: {volume['source']} does not exist")
            check(volume.get("read_only"), f"{where}: {volume['source']} is not read-only")


def check_ports(profile, services):
    """The addresses that configurations and variables name are those where a server listens."""
    folder = Path("deploy/compose")
    listen = re.search(r'^grpc = "0\.0\.0\.0:(\d+)"$', (folder / "rotacast.toml").read_text(), re.M)
    check(listen, "deploy/compose/rotacast.toml: no listen.grpc")
    port = listen[1] if listen else "?"
    published = [str(it["target"]) for it in services["broadcaster"]["ports"]]
    check(published == [port], f"{profile}: the broadcaster listens on {port} and publishes {published}")
    for name, service in services.items():
        url = service.get("environment", {}).get("ROTACAST_SERVER")
        check(url is None or url.endswith(f":{port}"), f"{profile}: {name}: ROTACAST_SERVER is {url}, expected port {port}")

    setup = (folder / "setup").read_text()
    check(f"ROTACAST_BROADCASTERS=https://broadcaster:{port} " in setup, f"deploy/compose/setup: another port than {port}")

    store, bus = profile.split("-")
    text = {name: json.dumps(service, sort_keys=True) for name, service in services.items()}
    for file, host in ((f"store-{store}.toml", store), (f"bus-{bus}.toml", bus)):
        address = re.search(rf'"(?:\w+://)?({host}):(\d+)"', (folder / file).read_text())
        check(address, f"deploy/compose/{file}: names no address of {host}")
        if not address:
            continue
        target = {int(it["target"]) for it in services[host].get("ports", [])}
        heard = int(address[2]) in target or f":{address[2]}" in text[host]
        check(heard, f"deploy/compose/{file}: port {address[2]}, which {host} neither publishes nor names")

    # The health check of the sample services looks for connections to PostgreSQL's port, in hexadecimal.
    hexadecimal = f":{int(services['postgres']['ports'][0]['target']):04X} 01 "
    for name in SAMPLES:
        check(hexadecimal in services[name]["healthcheck"]["test"], f"{profile}: {name}: no check of {hexadecimal!r}")


def check_admin():
    """The administrator that postgres.sql makes is the one that the broadcaster is."""
    sql = Path("deploy/compose/postgres.sql").read_text()
    url = Path("deploy/compose/payments-pg-admin").read_text().strip()
    user, password, _, _, database = re.fullmatch(r"postgres://(\w+):([^@]+)@(\w+):(\d+)/(\w+)", url).groups()
    check(f"CREATE ROLE {user} LOGIN CREATEROLE PASSWORD '{password}'" in sql, "postgres.sql makes another administrator")
    check("example" in password, "deploy/compose/payments-pg-admin: a password that does not look like an example")
    toml = Path("deploy/compose/rotacast.toml").read_text()
    check(f'database = "{database}"' in toml, "deploy/compose/rotacast.toml: another database")
    group = re.search(r'group_role = "(\w+)"', toml)[1]
    check(f"CREATE ROLE {group} NOLOGIN" in sql, f"postgres.sql does not make {group}")
    return database


def check_scripts(code):
    """The variables that the scripts hand on are read."""
    for script in ("setup", "sample"):
        text = (Path("deploy/compose") / script).read_text()
        for variable in re.findall(r"\b((?:ROTACAST|POOL_SERVICE)_[A-Z_]+)=", text):
            check(variable in code, f"deploy/compose/{script}: nothing reads {variable}")


def check_dockerfile(targets):
    text = Path("Dockerfile").read_text()
    stages = re.findall(r"^FROM (\S+) AS (\S+)$", text, re.M)
    names = {name for _, name in stages}
    check(targets <= names, f"Dockerfile: no stage {targets - names}")
    for base, name in stages:
        check(base in names | {"scratch"} or re.search(r":\d+\.\d+", base), f"Dockerfile: {base} is not pinned")
    for stage in re.split(r"^FROM ", text, flags=re.M)[1:]:
        name = stage.split("\n", 1)[0].rpartition(" ")[2]
        if name in targets:
            user = re.findall(r"^USER (.*)$", stage, re.M)
            check(user and not user[-1].startswith(("0", "root")), f"Dockerfile: {name} runs as root")
    rust = re.search(r"^FROM rust:(\d+)\.(\d+)", text, re.M)
    least = re.search(r'^rust-version = "(\d+)\.(\d+)"', Path("Cargo.toml").read_text(), re.M)
    check(tuple(map(int, rust.groups())) >= tuple(map(int, least.groups())), "Dockerfile: older than rust-version")
    # What is copied by name must be in the repository and in the build's context.
    allowed = [line[1:].strip() for line in Path(".dockerignore").read_text().splitlines() if line.startswith("!")]
    for source in re.findall(r"^COPY (?!--from)(?:--\S+ )*(\S+) \S+$", text, re.M):
        check(Path(source).exists(), f"Dockerfile: {source} does not exist")
        if source != ".":
            check(any(source == it or source.startswith(it + "/") for it in allowed), f".dockerignore leaves out {source}")
    for path in allowed:
        check(Path(path).exists(), f".dockerignore names {path}, which does not exist")
    # Everything that the workspace is made of must be in the context.
    tracked = subprocess.run(["git", "ls-files"], capture_output=True, text=True, check=False).stdout.split()
    for path in tracked:
        if path.endswith(("Cargo.toml", "Cargo.lock")) or path.startswith(".cargo/"):
            check(any(path == it or path.startswith(it + "/") for it in allowed), f".dockerignore leaves out {path}")


def main():
    code = variables_of_code()
    targets = set()
    for file in sorted(Path(sys.argv[1]).glob("*.json")):
        profile = file.stem
        services = json.loads(file.read_text())["services"]
        want = expected(profile)
        check(set(services) == want, f"{profile}: expected {sorted(want)}, found {sorted(services)}")
        if set(services) != want:
            continue
        for name, service in services.items():
            check_service(profile, name, service, services, code)
            targets.update([service["build"]["target"]] if "build" in service else [])
        if profile != "servers":
            check_ports(profile, services)
            database = services["postgres"]["environment"]["POSTGRES_DB"]
            check(database == check_admin(), f"{profile}: postgres makes database {database}")
    check_scripts(code)
    check_dockerfile(targets)
    for text in dict.fromkeys(wrong):
        print(f"WRONG: {text}")
    return 1 if wrong else 0


sys.exit(main())
