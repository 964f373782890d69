"""Two programs that take turns, and what their times say."""
import json
import os
import statistics
import subprocess
import threading
import time


class Refused(Exception):
    """A side that cannot do what it was asked, with its reason."""


def last_line(log):
    with open(log, errors="replace") as said:
        lines = [line.strip() for line in said if line.strip()]
    return lines[-1] if lines else None


class Side:
    """A program that answers lines with lines of JSON: engine_bench, or pytorch.py."""

    def __init__(self, command, log, patience):
        program = next((c for c in map(str, command) if c.endswith(".py")), str(command[0]))
        self.name, self.log, self.patience = os.path.basename(program), log, patience
        self.begun, self.late = time.perf_counter(), False
        with open(log, "wb") as err:
            try:
                self.process = subprocess.Popen(
                    [str(c) for c in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                    stderr=err, text=True)
            except OSError as failure:
                raise Refused(f"{command[0]}: {failure.strerror}") from None

    def age(self):
        """Seconds since it was started."""
        return time.perf_counter() - self.begun

    def give_up(self):
        self.late = True
        self.process.kill()

    def ask(self, line):
        watch = threading.Timer(self.patience, self.give_up)
        watch.start()
        try:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        finally:
            watch.cancel()
        try:
            return json.loads(answer)
        except ValueError:
            raise Refused(self.why()) from None

    def why(self):
        """Why it ended, in its own last words."""
        self.process.kill()
        status = self.process.wait()
        if self.late:
            return f"{self.name}: no answer within {self.patience:g} s"
        return last_line(self.log) or f"{self.name}: ended with status {status}"

    def run(self, times=1):
        return self.ask(str(times))

    def close(self):
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            pass
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def one_answer(command, log, patience):
    """Of a program that answers unasked and ends."""
    try:
        with open(log, "wb") as err:
            done = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, stderr=err,
                                  stdin=subprocess.DEVNULL, text=True, timeout=patience)
        return json.loads(done.stdout)
    except OSError as failure:
        raise Refused(f"{command[0]}: {failure.strerror}") from None
    except subprocess.TimeoutExpired:
        raise Refused(f"{command[0]}: no answer within {patience:g} s") from None
    except ValueError:
        ended = f"{command[0]}: ended with status {done.returncode}"
        raise Refused(last_line(log) or ended) from None


def take_turns(a, b, times, seconds, least=5, most=200):
    """Lists of both sides' answers: a turn here, a turn there."""
    first, second, end = [], [], time.monotonic() + seconds
    while len(first) < least or (time.monotonic() < end and len(first) < most):
        first.append(a.run(times))
        second.append(b.run(times))
    return first, second


def spread(values):
    values = sorted(values)
    if len(values) < 2:
        return {"median": values[0], "p10": values[0], "p90": values[0]}
    tenths = statistics.quantiles(values, n=10, method="inclusive")
    return {"median": statistics.median(values), "p10": tenths[0], "p90": tenths[-1]}


def ratio(ours, theirs):
    """How many times less ours is; None where one is unknown."""
    return theirs / ours if ours and theirs else None


def joules(gpu, side, times, images, seconds):
    """Of an image, over so long a stretch of nothing else; None where nobody counts."""
    before = gpu.joules() if gpu else None
    if before is None:
        return None
    end, runs = time.monotonic() + seconds, 0
    while runs == 0 or time.monotonic() < end:
        side.run(times)
        runs += 1
    return (gpu.joules() - before) / (runs * times * images)


def disagreements(found, bounds):
    """Of {name: off_by}, those that are not within their bounds, in words."""
    return [f"{name} off by {value:.2e}, expected at most {bounds[name]:.0e}"
            for name, value in found.items() if not value <= bounds[name]]
