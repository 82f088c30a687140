# Runs the program on stdin as "python3 -" would, and hands charts to the file
# named by the first argument. Nothing is loaded for it before the program
# imports matplotlib.


def boot(charts):
    import sys

    source = sys.stdin.buffer.read()
    path = sys.argv.pop(1)
    sys.argv[0] = "-"
    main = sys.modules["__main__"].__dict__
    del main["boot"]

    def hook(kind, value, tb):
        while tb is not None and tb.tb_frame.f_code.co_filename == "<string>":
            tb = tb.tb_next
        sys.__excepthook__(kind, value.with_traceback(tb), tb)

    class Finder(object):
        def find_spec(self, name, where=None, target=None):
            if name == "matplotlib":
                import os
                os.environ.setdefault("MPLBACKEND", "Agg")
            if name != "matplotlib.pyplot":
                return None
            sys.meta_path.remove(self)
            import importlib.util
            spec = importlib.util.find_spec(name)
            if spec is None:
                return None
            load = spec.loader.exec_module

            def exec_module(module):
                load(module)
                space = {"__name__": "atoll_charts"}
                exec(compile(charts, "<charts>", "exec"), space)
                space["install"](module, path)

            spec.loader.exec_module = exec_module
            return spec

    sys.excepthook = hook
    sys.meta_path.insert(0, Finder())
    exec(compile(source, "<stdin>", "exec", dont_inherit=True), main)


