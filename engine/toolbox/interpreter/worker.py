# Runs programs one after another in one name space. It reads requests, one JSON
# object a line, from its stdin and answers on file 3; what the programs write
# past sys.stdout and sys.stderr goes out on files 1 and 2, where a marker tells
# how far a program's own output reaches.
def serve():
    import ast
    import builtins
    import io
    import json
    import linecache
    import os
    import signal
    import sys
    import threading
    import traceback
    import types

    requests = os.fdopen(os.dup(0), "r", encoding="utf-8")
    channel = os.dup(3)
    os.close(3)
    outputs = {1: os.dup(1), 2: os.dup(2)}
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    lock = threading.RLock()
    MOST = 32 << 10  # characters of a chunk
    state = {"running": False, "sending": 0, "stop": False, "count": 0}
    main = threading.get_ident()

    def send(**chunk):  # an interrupt must not cut a message
        data = (json.dumps(chunk) + "\n").encode("ascii")
        mine = threading.get_ident() == main
        if mine:
            state["sending"] += 1
        try:
            with lock:
                while data:
                    data = data[os.write(channel, data):]
        finally:
            if mine:
                state["sending"] -= 1
        if mine and state["stop"] and not state["sending"]:
            stop(0, None)

    class Stream(io.TextIOBase):
        def __init__(self, kind, fd):
            self._kind, self._fd, self._line = kind, fd, ""
            self.buffer = io.FileIO(fd, "w", closefd=False)

        encoding = "utf-8"
        errors = "replace"
        name = property(lambda self: "<%s>" % self._kind)

        def write(self, text):
            if not isinstance(text, str):
                raise TypeError("write() argument must be str, not " + type(text).__name__)
            with lock:
                self._line += text
                if "\n" in text or len(self._line) > MOST:
                    self.flush()
            return len(text)

        def flush(self):
            with lock:
                text, self._line = self._line, ""
                for i in range(0, len(text), MOST):
                    send(type=self._kind, text=text[i:i + MOST])

        def writable(self):
            return True

        def fileno(self):
            return self._fd

    def stop(number, frame):
        state["stop"] = state["running"] and state["sending"] > 0
        if state["running"] and not state["stop"]:
            raise KeyboardInterrupt

    def compiled(code):
        name = "<code-%d>" % state["count"]
        linecache.cache[name] = (len(code), None, code.splitlines(True), name)
        linecache.cache.pop("<code-%d>" % (state["count"] - 500), None)
        tree = compile(code, name, "exec", ast.PyCF_ONLY_AST, dont_inherit=True)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        parts = [compile(tree, name, "exec", dont_inherit=True)]
        if last is not None:  # whose value is shown
            parts.append(compile(ast.Interactive([last]), name, "single", dont_inherit=True))
        return parts

    def complain(e):
        tb = e.__traceback__
        while tb is not None and tb.tb_frame.f_code.co_filename == "<string>":
            tb = tb.tb_next
        try:
            value = str(e)
        except Exception:
            value = "<no message>"
        text = "".join(traceback.format_exception(type(e), e.with_traceback(tb), tb))
        flush()
        send(type="error", name=type(e).__name__, value=value[:MOST], traceback=text[-MOST:])

    def run(code, space):
        outcome = "completed"
        try:
            try:
                state["running"] = True
                for part in compiled(code):
                    exec(part, space)
            finally:
                state["running"] = False
        except KeyboardInterrupt:
            outcome = "interrupted"
        except SystemExit as e:
            if e.code not in (None, 0):
                complain(e)
        except BaseException as e:
            complain(e)
        state["running"] = state["stop"] = False
        return outcome

    def flush():
        for name in ("stdout", "stderr"):
            try:
                getattr(sys, name).flush()
            except Exception:
                pass

    module = types.ModuleType("__main__")
    module.__builtins__ = builtins
    sys.modules["__main__"] = module
    sys.argv = [""]
    sys.stdin = open(0, "r", closefd=False)
    os.environ.setdefault("MPLBACKEND", "Agg")
    signal.signal(signal.SIGINT, stop)

    for line in requests:
        request = json.loads(line)
        state["count"] += 1
        for fd, kept in outputs.items():  # a program may have closed them
            os.dup2(kept, fd)
        sys.stdout, sys.stderr = Stream("stdout", 1), Stream("stderr", 2)
        before = {k: os.environ.get(k) for k in request["envs"]}
        os.environ.update(request["envs"])
        outcome = run(request["code"], module.__dict__)
        flush()
        for k, v in before.items():
            if v is None:
                os.environ.pop(k, None)
            else:
                os.environ[k] = v
        for fd in outputs.values():
            os.write(fd, request["marker"].encode("ascii"))
        send(type="control", text=outcome)


serve()
