"""The scenarios of run.sh. They run inside its Debian system, with the Python of Home Assistant.

Home Assistant is asked through its own interfaces: device and entity registries, states and the recorder's database. What affectd
publishes is never read, except in the answers to commands.
"""

import asyncio
import contextlib
import json
import os
import re
import shutil
import sqlite3
import sys
import time
from collections import Counter
from pathlib import Path

HOME_ASSISTANT = "http://127.0.0.1:8123"
BROKER_PORT = 1883
RELAY_PORT = 2883
WORK = Path("/srv/work")
CONFIGURATION = """
homeassistant:
  name: bench
  country: DE
config:
history:
logger:
  default: warning
recorder:
  commit_interval: 1
"""
# The entities of a device, by the last part of their unique identifiers: what Home Assistant must know about each.
ENTITIES = {
    "valence": {"state_class": "measurement"},
    "arousal": {"state_class": "measurement"},
    "confidence": {"state_class": "measurement", "unit_of_measurement": "%"},
    "expression": {"device_class": "enum"},
    "face": {"device_class": "occupancy"},
    "voice": {"device_class": "sound"},
    "camera": {"device_class": "enum", "category": "diagnostic"},
    "microphone": {"device_class": "enum", "category": "diagnostic"},
    "problem": {"device_class": "problem", "category": "diagnostic"},
    "latency": {"device_class": "duration", "unit_of_measurement": "ms", "category": "diagnostic"},
    "dropped": {"state_class": "total_increasing", "category": "diagnostic"},
    "face_rate": {"device_class": "frequency", "unit_of_measurement": "Hz", "category": "diagnostic"},
    "devices": {},
    "baseline": {},
    "restart": {"device_class": "restart", "category": "config"},
    "rate": {"device_class": "frequency", "unit_of_measurement": "Hz", "category": "config"},
}
# The clip, from a program as its camera and one as its microphone: these can be closed and opened again.
PLAY = "ffmpeg -loglevel error -re -i /srv/clip.mkv"
LIVE = f"--camera 'command:{PLAY} -an -c:v copy -f mjpeg -' --microphone 'command:{PLAY} -vn -f wav -'"
# Only on machines with a thermal zone.
TEMPERATURE = {"device_class": "temperature", "unit_of_measurement": "°C", "category": "diagnostic"}
# The state of a button is the time of its last press, so it is unknown at first.
BUTTONS = {"baseline", "restart"}
# These have no value while nobody is in front of the camera, as in a part of the clip.
OF_A_PERSON = {"valence", "arousal", "confidence", "expression", "latency"}


class Failed(Exception):
    """A scenario has failed, with the reason."""


def check(condition, text):
    if not condition:
        raise Failed(text)


async def wait_for(what, seconds, condition):
    """Calls `condition` until it returns something true, and returns that."""
    until = time.monotonic() + seconds
    while True:
        result = condition()
        if asyncio.iscoroutine(result):
            result = await result
        if result:
            return result
        check(time.monotonic() < until, f"{what}: not within {seconds} s")
        await asyncio.sleep(0.2)


class Program:
    """A process. Its output goes to a log file."""

    def __init__(self, name, *command, env=None):
        self.name, self.command, self.env = name, command, env
        self.process = None

    async def start(self):
        log = (WORK / f"{self.name}.log").open("ab")
        self.process = await asyncio.create_subprocess_exec(
            *self.command, stdout=log, stderr=log, env={**os.environ, **(self.env or {})}
        )
        return self

    def signal(self, number):
        self.process.send_signal(number)

    async def stop(self, number=15):
        if self.process and self.process.returncode is None:
            self.process.send_signal(number)
            if number != 9:
                self.process.send_signal(18)  # A stopped process does not end.
            await self.process.wait()


class Relay:
    """A link to the broker that can be cut."""

    def __init__(self):
        self.server, self.links = None, set()

    async def open(self):
        self.server = await asyncio.start_server(self.connect, "127.0.0.1", RELAY_PORT)
        return self

    async def connect(self, reader, writer):
        upstream = await asyncio.open_connection("127.0.0.1", BROKER_PORT)
        ends = [writer, upstream[1]]
        self.links.update(ends)
        try:
            await asyncio.gather(self.copy(reader, upstream[1]), self.copy(upstream[0], writer))
        except OSError:
            pass
        finally:
            for end in ends:
                end.close()
            self.links.difference_update(ends)

    @staticmethod
    async def copy(reader, writer):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def cut(self):
        self.server.close()
        for link in list(self.links):
            link.transport.abort()


class HomeAssistant:
    """Its process and its HTTP and WebSocket interfaces."""

    def __init__(self, session):
        self.session = session
        self.token = None
        self.folder = WORK / "home-assistant"
        self.program = Program("home-assistant", "hass", "--config", str(self.folder))

    async def start(self):
        self.folder.mkdir(exist_ok=True)
        (self.folder / "configuration.yaml").write_text(CONFIGURATION)
        await self.program.start()
        await wait_for("Home Assistant starts", 180, self.is_running)

    async def is_running(self):
        check(self.program.process.returncode is None, "Home Assistant ended: see its log")
        try:
            async with self.session.get(f"{HOME_ASSISTANT}/api/onboarding"):
                return True
        except OSError:
            return False

    async def restart(self):
        await self.program.stop()
        await self.start()

    async def http(self, path, data=None, form=None):
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        method = "GET" if data is None and form is None else "POST"
        request = self.session.request(method, f"{HOME_ASSISTANT}{path}", json=data, data=form, headers=headers)
        async with request as response:
            text = await response.text()
            check(response.status < 400, f"{path}: HTTP {response.status}: {text[:300]}")
            return json.loads(text) if text.startswith(("{", "[")) else None

    async def onboard(self):
        """Creates the first user, and adds the broker."""
        client = f"{HOME_ASSISTANT}/"
        user = {"name": "bench", "username": "bench", "password": "bench", "language": "en", "client_id": client}
        created = await self.http("/api/onboarding/users", user)
        grant = {"grant_type": "authorization_code", "code": created["auth_code"], "client_id": client}
        self.token = (await self.http("/auth/token", form=grant))["access_token"]
        flow = await self.http("/api/config/config_entries/flow", {"handler": "mqtt"})
        answers = {"broker": "127.0.0.1", "port": BROKER_PORT}
        for field in flow["data_schema"]:
            if field.get("required") and field["name"] not in answers:
                answers[field["name"]] = default_of(field)
        done = await self.http(f"/api/config/config_entries/flow/{flow['flow_id']}", answers)
        check(done["type"] == "create_entry", f"the broker is not accepted: {done}")

    @contextlib.asynccontextmanager
    async def websocket(self):
        async with self.session.ws_connect(f"{HOME_ASSISTANT}/api/websocket", max_msg_size=0) as socket:
            await socket.receive_json()
            await socket.send_json({"type": "auth", "access_token": self.token})
            check((await socket.receive_json())["type"] == "auth_ok", "the login fails")
            yield socket

    async def ask(self, **question):
        async with self.websocket() as socket:
            await socket.send_json({"id": 1, **question})
            answer = await socket.receive_json()
            check(answer["success"], f"{question}: {answer}")
            return answer["result"]

    async def devices(self):
        """The devices of affectd: name → entities, by the last part of their unique identifiers."""
        registry = await self.ask(type="config/device_registry/list")
        entities = await self.ask(type="config/entity_registry/list")
        states = {state["entity_id"]: state for state in await self.http("/api/states")}
        devices = {}
        for device in registry:
            if device["manufacturer"] != "affectd":
                continue
            (identifier,) = (value for _, value in device["identifiers"])
            own = [entity for entity in entities if entity["device_id"] == device["id"]]
            found = {entity["unique_id"].removeprefix(f"{identifier}_"): entity for entity in own}
            for entity in found.values():
                entity["state"] = states.get(entity["entity_id"], {}).get("state")
                entity["attributes"] = states.get(entity["entity_id"], {}).get("attributes", {})
            # For a moment, two boards may have one name.
            name = device["name"] if device["name"] not in devices else f"{device['name']} {identifier}"
            devices[name] = found
        return devices

    async def entities(self, device="affectd kitchen"):
        return (await self.devices()).get(device)

    async def changes(self, seconds):
        """The states that change within `seconds`: (second, entity, state)."""
        changes, began = [], time.monotonic()
        async with self.websocket() as socket:
            await socket.send_json({"id": 1, "type": "subscribe_events", "event_type": "state_changed"})
            while (left := began + seconds - time.monotonic()) > 0:
                with contextlib.suppress(asyncio.TimeoutError):
                    message = await socket.receive_json(timeout=left)
                    event = message.get("event", {}).get("data")
                    if event and event["old_state"] and event["new_state"] and "affectd" in event["entity_id"]:
                        state = event["new_state"]["state"]
                        if state != event["old_state"]["state"]:
                            changes.append((time.monotonic() - began, event["entity_id"], state))
        return changes

    async def call(self, domain, service, entity, **data):
        await self.http(f"/api/services/{domain}/{service}", {"entity_id": entity, **data})

    def rows(self, since):
        """How many states of affectd the recorder has written since that time."""
        query = (
            "SELECT COUNT(*) FROM states JOIN states_meta USING (metadata_id) "
            "WHERE states_meta.entity_id LIKE '%affectd%' AND last_updated_ts >= ?"
        )
        with contextlib.closing(sqlite3.connect(self.folder / "home-assistant_v2.db")) as database:
            return database.execute(query, (since,)).fetchone()[0]

    def complaints(self):
        log = (self.folder / "home-assistant.log").read_text()
        return [line for line in log.splitlines() if re.search("WARNING|ERROR", line) and "affectd" in line]


def default_of(field):
    """The default of a field of a form. A section has fields of its own."""
    if "schema" in field:
        return {inner["name"]: default_of(inner) for inner in field["schema"] if inner.get("required")}
    options = field.get("selector", {}).get("select", {}).get("options", [None])
    return field.get("default", options[0])


class Bench:
    """What all scenarios share."""

    def __init__(self, home_assistant):
        self.home_assistant = home_assistant
        self.broker = Program("mosquitto", "mosquitto", "-c", str(WORK / "mosquitto.conf"))
        self.boards = []

    async def start(self):
        WORK.joinpath("mosquitto.conf").write_text(
            f"listener {BROKER_PORT} 127.0.0.1\nallow_anonymous true\nuser root\n"
            f"persistence true\npersistence_location {WORK}/\n"
        )
        await self.broker.start()
        await self.home_assistant.start()
        await self.home_assistant.onboard()

    async def board(
        self,
        device="kitchen",
        options="",
        port=BROKER_PORT,
        machine="a" * 32,
        source="--input /srv/clip.mkv --realtime",
    ):
        """Starts affectd on a board of its own."""
        identity = WORK / f"machine-id-{machine[:4]}"
        identity.write_text(machine + "\n")
        output = f"mqtt://127.0.0.1:{port}?device={device}{options}"
        # The machine's identifier is a file, which each board sees differently.
        run = f"affectd run {source} --output '{output}'"
        script = f"mount --bind {identity} /etc/machine-id && exec {run}"
        board = Program("affectd", "unshare", "--mount", "--propagation", "unchanged", "sh", "-c", script)
        if not Path("/etc/machine-id").exists():
            Path("/etc/machine-id").touch()
        self.boards.append(await board.start())
        return board

    async def end_boards(self):
        for board in self.boards:
            await board.stop()
        self.boards.clear()

    async def close(self):
        await self.end_boards()
        await self.home_assistant.program.stop()
        await self.broker.stop()

    async def publish(self, *arguments):
        process = await asyncio.create_subprocess_exec("mosquitto_pub", "-p", str(BROKER_PORT), *arguments)
        check(await process.wait() == 0, f"mosquitto_pub {arguments} failed")

    async def retained(self, topics):
        """The topics that the broker has stored."""
        command = ("mosquitto_sub", "-p", str(BROKER_PORT), "-t", topics, "--retained-only", "-F", "%t", "-W", "2")
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
        try:
            output, _ = await asyncio.wait_for(process.communicate(), 20)
        except TimeoutError:
            # Some versions of mosquitto_sub hang when their -W ends.
            process.kill()
            raise
        return output.decode().split()

    async def running(self, device="affectd kitchen"):
        """Waits until all entities of the device are available, and returns them."""

        async def all_available():
            entities = await self.home_assistant.entities(device)
            return entities if entities and not unavailable(entities) else None

        return await wait_for(f"all entities of {device} are available", 40, all_available)


def unavailable(entities):
    """The entities without a state, except those that may have none."""
    missing = {key for key, entity in entities.items() if entity["state"] in (None, "unavailable")}
    unknown = {key for key, entity in entities.items() if entity["state"] == "unknown"}
    return missing | (unknown - BUTTONS - OF_A_PERSON)


async def entities_have_classes_units_and_states(bench):
    await bench.board()
    entities = await bench.running()
    expected = ENTITIES | ({"temperature": TEMPERATURE} if "temperature" in entities else {})
    check(set(entities) == set(expected), f"entities: {sorted(entities)}")
    for key, wanted in expected.items():
        entity = entities[key]
        found = {name: entity["attributes"].get(name) for name in wanted} | {"category": entity["entity_category"]}
        check(found == {"category": None, **wanted}, f"{key}: {found}")

    async def all_known():
        entities = await bench.home_assistant.entities()
        return all(entities[key]["state"] not in ("unknown", "unavailable") for key in OF_A_PERSON)

    await wait_for("all values of a person are known while there is one", 20, all_known)


async def the_recorder_writes_at_most_200_rows_a_minute(bench):
    await bench.board()
    await bench.running()
    await asyncio.sleep(3)
    since = time.time()
    changes = await bench.home_assistant.changes(60)
    await asyncio.sleep(2)
    rows = bench.home_assistant.rows(since)
    check(20 <= rows <= 200, f"{rows} rows in a minute: {Counter(entity for _, entity, _ in changes)}")
    long = {state for _, _, state in changes if re.fullmatch(r"-?\d+\.\d{3,}", state)}
    check(not long, f"states with more than two decimals: {sorted(long)[:5]}")
    return f"{rows} rows"


async def presence_does_not_flicker(bench):
    await bench.board()
    await bench.running()
    changes = Counter(entity for _, entity, _ in await bench.home_assistant.changes(30) if "binary_sensor" in entity)
    # The clip is ten seconds long and shows each once.
    check(all(count <= 8 for count in changes.values()), f"{changes}")
    return ", ".join(f"{entity} {count}" for entity, count in sorted(changes.items()))


async def statistics_are_kept_without_a_complaint(bench):
    await bench.board()
    await bench.running()
    statistics = {found["statistic_id"] for found in await bench.home_assistant.ask(type="recorder/list_statistic_ids")}
    wanted = {f"sensor.affectd_kitchen_{name}" for name in ("valence", "arousal", "confidence", "latency")}
    check(wanted <= statistics, f"without statistics: {wanted - statistics}")
    issues = await bench.home_assistant.ask(type="recorder/validate_statistics")
    check(issues == {}, f"{issues}")


async def a_stopped_killed_or_hung_board_is_unavailable(bench):
    for number, seconds in ((15, 5), (9, 5), (19, 25)):
        board = await bench.board()
        await bench.running()
        board.signal(number)

        async def none_available():
            entities = await bench.home_assistant.entities()
            return all(entity["state"] == "unavailable" for entity in entities.values())

        await wait_for(f"unavailable after signal {number}", seconds, none_available)
        await board.stop(9 if number == 19 else 15)
        await asyncio.sleep(1)


async def a_restart_of_home_assistant_or_broker_is_survived(bench):
    await bench.board()
    await bench.running()
    await bench.home_assistant.restart()
    await bench.running()
    await bench.broker.stop(9)
    (WORK / "mosquitto.db").unlink(missing_ok=True)
    await bench.broker.start()
    await asyncio.sleep(3)
    await bench.running()
    check(await bench.retained("homeassistant/#"), "the announcement is not retained again")


async def the_past_is_not_shown_as_the_present(bench):
    relay = await Relay().open()
    await bench.board(port=RELAY_PORT)
    await bench.running()
    await relay.cut()
    await asyncio.sleep(60)
    await relay.open()
    changes = await bench.home_assistant.changes(40)
    await relay.cut()
    check(changes, "no connection after the outage")
    most = max(Counter(int(at) for at, _, _ in changes).values())
    # All entities become available at once, and take their first values.
    check(most <= 40, f"{most} changes in one second")
    return f"at most {most} changes in one second"


async def buttons_and_the_rate_reach_the_board(bench):
    await bench.board()
    entities = await bench.running()
    answers = await asyncio.create_subprocess_exec(
        *("mosquitto_sub", "-p", str(BROKER_PORT), "-t", "affectd/kitchen/response"), stdout=asyncio.subprocess.PIPE
    )

    async def answer():
        line = await asyncio.wait_for(answers.stdout.readline(), 10)
        return json.loads(line)

    await asyncio.sleep(1)
    call = bench.home_assistant.call
    await call("button", "press", entities["baseline"]["entity_id"])
    check(await answer() == {"ok": "baseline"}, "no answer to the button")
    await call("number", "set_value", entities["rate"]["entity_id"], value=1)
    check(await answer() == {"ok": {"rate": 1.0}}, "no answer to the number")

    async def rate_is_shown():
        return float((await bench.home_assistant.entities())["rate"]["state"]) == 1.0

    await wait_for("the new rate is shown", 10, rate_is_shown)
    await asyncio.sleep(8)
    await call("button", "press", entities["restart"]["entity_id"])
    check(await answer() == {"ok": "restart"}, "no answer to the restart")
    answers.kill()
    await answers.wait()

    async def rate_is_back():
        entities = await bench.home_assistant.entities()
        return entities["rate"]["state"] not in ("unavailable", "unknown") and float(entities["rate"]["state"]) == 5.0

    await wait_for("the board restarts", 30, rate_is_back)
    await bench.running()


async def the_switch_closes_and_opens_camera_and_microphone(bench):
    await bench.board(source=LIVE)

    def players():
        return sum(
            path.read_bytes().startswith(b"ffmpeg") and b"/srv/clip.mkv" in path.read_bytes()
            for path in Path("/proc").glob("[0-9]*/cmdline")
        )

    async def shows(switch, devices):
        entities = await bench.home_assistant.entities()
        states = [entities[key]["state"] for key in ("devices", "camera", "microphone")]
        return states == [switch, devices, devices]

    async def is_playing():
        return await shows("on", "running") and players() == 2

    async def is_closed():
        return await shows("off", "paused") and players() == 0

    await bench.running()
    await wait_for("camera and microphone run", 20, is_playing)
    switch = (await bench.home_assistant.entities())["devices"]["entity_id"]
    await bench.home_assistant.call("switch", "turn_off", switch)
    await wait_for("camera and microphone are closed", 10, is_closed)
    await asyncio.sleep(4)
    entities = await bench.home_assistant.entities()
    shown = {key: entities[key]["state"] for key in sorted(OF_A_PERSON | {"face", "voice", "problem"})}
    expected = dict.fromkeys(OF_A_PERSON, "unknown") | dict.fromkeys(("face", "voice", "problem"), "off")
    check(shown == expected, f"while paused: {shown}")
    await bench.home_assistant.call("switch", "turn_on", switch)
    await wait_for("camera and microphone run again", 20, is_playing)


async def a_renamed_board_leaves_nothing_behind(bench):
    board = await bench.board()
    await bench.running()
    await board.stop()
    await bench.board("lounge")
    await bench.running("affectd lounge")
    await wait_for("the old name is gone", 10, lambda: only_device(bench, "affectd lounge"))
    check(not await bench.retained("affectd/kitchen/#"), "the old topics are still there")


async def only_device(bench, *names):
    return set(await bench.home_assistant.devices()) == set(names)


async def discovery_off_removes_the_device_and_on_brings_it_back(bench):
    board = await bench.board()
    await bench.running()
    await board.stop()
    board = await bench.board(options="&discovery=off")
    await wait_for("the device is gone", 10, lambda: only_device(bench))
    await board.stop()
    await bench.board(options="&discovery=on")
    await bench.running()


async def forget_removes_a_device(bench):
    board = await bench.board("attic", machine="b" * 32)
    await bench.running("affectd attic")
    # The board is gone for ever.
    await board.stop()
    process = await asyncio.create_subprocess_exec(
        *("affectd", "forget", "attic", "--output", f"mqtt://127.0.0.1:{BROKER_PORT}"), stdout=asyncio.subprocess.PIPE
    )
    text = (await process.communicate())[0].decode()
    check(process.returncode == 0 and "affectd/attic/status" in text, text)
    await wait_for("the device is gone", 10, lambda: only_device(bench))
    check(not await bench.retained("affectd/#"), "the topics are still there")


async def two_boards_with_one_name_are_two_devices(bench):
    first = await bench.board(machine="a" * 32)
    await bench.running()
    second = await bench.board(machine="b" * 32)

    async def two_available():
        devices = await bench.home_assistant.devices()
        return devices if len(devices) == 2 and not any(map(unavailable, devices.values())) else None

    await wait_for("both boards are available", 30, two_available)
    watching = asyncio.create_task(bench.home_assistant.changes(8))
    await asyncio.sleep(1)
    second.signal(9)
    changes = await watching
    gone = {entity for _, entity, state in changes if state == "unavailable"}
    devices = await bench.home_assistant.devices()
    alive = [device for device in devices.values() if not unavailable(device)]
    dead = [device for device in devices.values() if unavailable(device) == set(device)]
    check(len(alive) == 1 and len(dead) == 1, f"after one board died: {gone}")
    ids = {entity["entity_id"] for entity in alive[0].values()}
    check(not gone & ids, f"the death of one board made entities of the other unavailable: {gone & ids}")
    await first.stop()


async def the_log_has_no_complaint(bench):
    complaints = bench.home_assistant.complaints()
    check(not complaints, "\n".join(complaints[:5]))


SCENARIOS = [
    entities_have_classes_units_and_states,
    the_recorder_writes_at_most_200_rows_a_minute,
    presence_does_not_flicker,
    statistics_are_kept_without_a_complaint,
    a_stopped_killed_or_hung_board_is_unavailable,
    a_restart_of_home_assistant_or_broker_is_survived,
    the_past_is_not_shown_as_the_present,
    buttons_and_the_rate_reach_the_board,
    the_switch_closes_and_opens_camera_and_microphone,
    a_renamed_board_leaves_nothing_behind,
    discovery_off_removes_the_device_and_on_brings_it_back,
    forget_removes_a_device,
    two_boards_with_one_name_are_two_devices,
    the_log_has_no_complaint,
]


async def clear(bench):
    """Removes all devices and retained messages, for the next scenario."""
    await bench.end_boards()
    for topic in await bench.retained("#"):
        await bench.publish("-t", topic, "-r", "-n")
    await wait_for("all devices are gone", 10, lambda: only_device(bench))


async def run(scenarios):
    import aiohttp  # Only here: `--list` runs without it.

    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir()
    failed = 0
    async with aiohttp.ClientSession() as session:
        bench = Bench(HomeAssistant(session))
        try:
            await bench.start()
            for scenario in scenarios:
                began = time.monotonic()
                try:
                    detail = await scenario(bench)
                    result = "ok  "
                    await clear(bench)
                except Exception as why:  # The next scenario runs whatever goes wrong in this one.
                    detail, result = why if isinstance(why, Failed) else repr(why), "FAIL"
                    failed += 1
                    with contextlib.suppress(Failed):
                        await clear(bench)
                text = scenario.__name__.replace("_", " ") + (f" ({detail})" if detail else "")
                print(f"{result} {text} [{time.monotonic() - began:.0f} s]", flush=True)
        finally:
            await bench.close()
    print(f"{len(scenarios) - failed} of {len(scenarios)} scenarios passed")
    return failed == 0


def main(arguments):
    names = {scenario.__name__: scenario for scenario in SCENARIOS}
    if arguments == ["--list"]:
        print("\n".join(names))
        return 0
    unknown = [name for name in arguments if name not in names]
    if unknown:
        print(f"unknown scenarios: {', '.join(unknown)}", file=sys.stderr)
        return 2
    os.system("ip link set lo up")
    return 0 if asyncio.run(run([names[name] for name in arguments] or SCENARIOS)) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
