"""What each command does. What it finds goes to the screen, or as JSON Lines to the output."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import Mapping
from typing import Any, Final, TextIO

from redis.exceptions import RedisError

from inspector.causes import causes
from inspector.checks import Finding
from inspector.connection import OpenedRedis, connected, opened
from inspector.examination import examine
from inspector.following import Told, follow, reader_that_only_looks
from inspector.options import InspectorSettings, Options
from inspector.recording import lines_of, record_from_redis
from inspector.replay import Replayer
from inspector.reports import conversation_json, finding_json, list_json, step_json
from inspector.screen import Screen, Styled
from inspector.timeline import RunTimeline, plural
from inspector.trouble import explain
from inspector.views import show_conversation, show_findings, show_list, show_step
from streaming.errors import ConversationNotFound, InvalidInput, RunNotFound, StreamingError
from streaming.identifiers import check_conversation_id, check_run_id, new_id
from streaming.store.conversations import Found, RunRecord

ALL_IS_WELL: Final = 0
SOMETHING_FOUND: Final = 1
#: A silence is told of first after so many seconds, and then each time that it has doubled.
QUIET_SECONDS: Final = 5.0


class Inspector:
    """Carries out one command."""

    def __init__(self, options: Options, settings: InspectorSettings, screen: Screen, out: TextIO) -> None:
        """Describe it.

        Args:
            options: What is wanted.
            settings: Where to look.
            screen: For people.
            out: For programs.
        """
        self._options, self._settings = options, settings
        self._screen, self._out = screen, out

    async def execute(self) -> int:
        """Do it. Returns the process's exit status.

        Raises:
            StreamingError: it can't be done; the message says why.
        """
        commands = {
            "list": self._list,
            "show": self._show,
            "follow": self._follow,
            "export": self._export,
            "check": self._check,
            "replay": self._replay,
        }
        try:
            return await commands[self._options.command]()
        except RedisError as error:
            raise explain(error) from error

    @property
    def _source(self) -> str:
        return self._options.source or ""

    async def _list(self) -> int:
        options = self._options
        async with connected(self._settings) as connection:
            found = await self._find(connection)
            glances = await connection.conversations.glance(found.conversation_ids)
            now = await connection.conversations.now()
        glances.sort(key=lambda glance: glance.latest, reverse=True)
        wanted = []
        for glance in glances:
            fields = glance.latest_run.fields if glance.latest_run is not None else {}
            if options.agent in (None, fields.get("agent")) and options.status in (
                None,
                fields.get("status"),
            ):
                wanted.append(glance)
        shown = wanted[: options.limit]
        if options.as_json:
            for glance in shown:
                self._write(list_json(glance, now))
            return ALL_IS_WELL
        if shown:
            show_list(self._screen, shown, now)
        more = f" of {len(wanted)}: --limit shows more" if len(wanted) > len(shown) else ""
        self._screen.line(Styled(f"{plural(len(shown), 'conversation')}{more}", "dim"))
        return ALL_IS_WELL

    async def _find(self, connection: OpenedRedis) -> Found:
        found = await connection.conversations.find(most_keys=self._options.most_keys)
        if not found.is_whole:
            self._warn(
                f"Redis has more than {self._options.most_keys:,} keys, and only these were looked at: some "
                "conversations may be missing. --most-keys looks at more."
            )
        return found

    async def _show(self) -> int:
        options = self._options
        async with opened(self._source, self._settings) as recording:
            examined = await examine(recording, keep_said=options.with_text)
        runs = [run for run in examined.runs if options.run in (None, run.run)]
        if options.run is not None and not runs:
            raise RunNotFound
        stored = recording.stored
        if options.as_json:
            self._write(conversation_json(stored, runs, examined.findings, with_text=options.with_text))
            return ALL_IS_WELL
        show_conversation(self._screen, stored, runs, with_text=options.with_text)
        if examined.findings:
            self._screen.line()
            show_findings(self._screen, examined.findings)
        return ALL_IS_WELL

    async def _export(self) -> int:
        async with opened(self._source, self._settings) as recording:
            with contextlib.ExitStack() as stack:
                out = self._out
                if self._options.output is not None:
                    try:
                        out = stack.enter_context(self._options.output.open("x", encoding="utf-8"))
                    except OSError as error:
                        reason = error.strerror or "it can't be written"
                        raise InvalidInput(
                            "--output", str(self._options.output), f"a new file ({reason})"
                        ) from None
                async for line in lines_of(recording):
                    out.write(line)
        return ALL_IS_WELL

    async def _check(self) -> int:
        checked = _Checked()
        if not self._options.every:
            async with opened(self._source, self._settings) as recording:
                examined = await examine(recording)
                checked.add(len(examined.runs), examined.entries, self._tell(examined.findings))
        else:
            async with connected(self._settings) as connection:
                for conversation_id in (await self._find(connection)).conversation_ids:
                    with contextlib.suppress(ConversationNotFound):
                        # It may have expired since it was found.
                        recording = await record_from_redis(connection.conversations, conversation_id)
                        examined = await examine(recording)
                        checked.add(len(examined.runs), examined.entries, self._tell(examined.findings))
        if not self._options.as_json:
            self._screen.line(*checked.sentence())
        return SOMETHING_FOUND if checked.findings else ALL_IS_WELL

    def _tell(self, findings: Any) -> int:
        told: list[Finding] = list(findings)
        if self._options.as_json:
            for finding in told:
                self._write(finding_json(finding))
        else:
            show_findings(self._screen, told)
        return len(told)

    async def _follow(self) -> int:
        options = self._options
        conversation_id = check_conversation_id(self._source)
        run = check_run_id(options.run) if options.run is not None else None
        async with connected(self._settings) as connection:
            reader = reader_that_only_looks(connection.runs)
            teller = _Teller(self._screen, options, self._write)
            events = follow(
                connection.runs,
                reader,
                conversation_id,
                run=run,
                forever=options.forever,
                said=options.with_text,
            )
            try:
                async with contextlib.aclosing(events):
                    async for told in events:
                        teller.tell(told, await connection.conversations.now() if told.silent else None)
                        if (
                            told.run is not None
                            and told.run.terminal is not None
                            and told.run.run is not None
                        ):
                            record = await connection.conversations.record(conversation_id, told.run.run)
                            teller.ended(told.run, record, await connection.conversations.now())
            finally:
                await reader.close()
        return ALL_IS_WELL

    async def _replay(self) -> int:
        options = self._options
        run = check_run_id(options.run) if options.run is not None else None
        into = check_conversation_id(options.into) if options.into is not None else new_id()
        async with opened(self._source, self._settings) as recording, connected(self._settings) as connection:
            if run is not None and run not in {record.run for record in recording.stored.runs}:
                raise RunNotFound
            if await connection.conversations.look(into) is not None:
                raise InvalidInput("--into", into, "a conversation that is not there yet")
            self._screen.line("Playing into ", Styled(into, "strong"), "; Ctrl-C stops it.")
            replayer = Replayer(
                connection.runs,
                connection.another,
                connection.stream_ttl,
                speed=options.speed,
                agent=options.agent,
            )
            played = await replayer.play(recording, into, run=run)
        stopped = ", stopped by somebody" if played.was_stopped else ""
        runs, entries = plural(played.runs, "run"), plural(played.entries, "entry")
        self._screen.line(Styled(f"Played {runs}, {entries}{stopped}.", "dim"))
        return ALL_IS_WELL

    def _write(self, content: Mapping[str, Any]) -> None:
        self._out.write(json.dumps(content, ensure_ascii=False, default=str) + "\n")
        self._out.flush()

    @staticmethod
    def _warn(text: str) -> None:
        sys.stderr.write(f"{text}\n")


class _Checked:
    """What check has looked at so far."""

    def __init__(self) -> None:
        self.conversations = self.runs = self.entries = self.findings = 0

    def add(self, runs: int, entries: int, findings: int) -> None:
        self.conversations += 1
        self.runs += runs
        self.entries += entries
        self.findings += findings

    def sentence(self) -> tuple[Styled, Styled]:
        looked = ", ".join(
            plural(count, name)
            for count, name in (
                (self.conversations, "conversation"),
                (self.runs, "run"),
                (self.entries, "entry"),
            )
        )
        if self.findings:
            return Styled(plural(self.findings, "finding"), "bad"), Styled(f" in {looked}", "dim")
        return Styled("nothing wrong", "good"), Styled(f" in {looked}", "dim")


class _Teller:
    """Tells what a follower hears."""

    def __init__(self, screen: Screen, options: Options, write: Any) -> None:
        self._screen, self._options, self._write = screen, options, write
        self._run: RunTimeline | None = None
        self._quiet_since: float | None = None
        self._tell_quiet_after = QUIET_SECONDS
        self._ended: set[str] = set()

    def tell(self, told: Told, now: int | None) -> None:
        if told.notice is not None:
            self._say("notice", told.notice)
        if told.run is not None and told.step is not None:
            self._step(told.run, told)
        elif told.silent is not None and now is not None:
            self._silence(told.run, told.silent, now)

    def _step(self, run: RunTimeline, told: Told) -> None:
        step = told.step
        assert step is not None  # noqa: S101 - tell has looked
        self._quiet_since, self._tell_quiet_after = None, QUIET_SECONDS
        start = run.created or step.at
        if self._options.as_json:
            self._write({"run": run.run, **step_json(step, start, with_text=self._options.with_text)})
            return
        if run is not self._run:
            self._run = run
            agent = run.record.fields.get("agent", "") if run.record is not None else ""
            self._screen.line(Styled("run ", "dim"), Styled(run.run or "(anonymous)", "strong"), f" {agent}")
        show_step(self._screen, step, start, with_text=self._options.with_text)

    def _silence(self, run: RunTimeline | None, record: RunRecord, now: int) -> None:
        clock = asyncio.get_running_loop().time()
        self._quiet_since = self._quiet_since or clock
        if clock - self._quiet_since < self._tell_quiet_after:
            return
        self._tell_quiet_after *= 2
        timeline = run if run is not None and run.run == record.run else RunTimeline(record.run)
        timeline.record = record
        for cause in causes(timeline, now):
            self._say("cause", cause)

    def ended(self, run: RunTimeline, record: RunRecord | None, now: int) -> None:
        """Say why, once for each run."""
        if run.run is None or run.run in self._ended:
            return
        self._ended.add(run.run)
        run.record = record or run.record
        for cause in causes(run, now):
            self._say("cause", cause)

    def _say(self, kind: str, text: str) -> None:
        if self._options.as_json:
            self._write({"kind": kind, "what": text})
        else:
            self._screen.line(Styled("  ⇒ ", "warn"), text)


def exit_status_of(error: StreamingError) -> int:
    """The process's exit status where a command can't be carried out."""
    return 4 if error.http_status == 503 else 2  # noqa: PLR2004 - what is away may be back soon
