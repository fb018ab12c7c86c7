"""threadpoolctl sees the engine's threads, and limits them: ``threadpool_limits(1, user_api="fastcurv")``."""

from . import _engine


def register():
    """Tell threadpoolctl about the engine, where it is installed. Called at import."""
    try:
        import threadpoolctl
    except ImportError:
        return False
    if not hasattr(threadpoolctl, "register"):           # before 3.3
        return False

    class FastcurvController(threadpoolctl.LibController):
        """The engine's team of threads, one for the process."""

        user_api = "fastcurv"
        internal_api = "fastcurv"
        filename_prefixes = ("_engine",)
        check_symbols = ("fc_team_limit", "fc_team_get_limit")

        def get_num_threads(self):
            """The limit in force, or what would be used by default; it is remembered, so that putting it back lifts a limit."""
            limit = _engine.get_thread_limit()
            self.unlimited = not limit
            return limit or _engine.default_threads()

        def set_num_threads(self, num_threads):
            lifted = getattr(self, "unlimited", False) and num_threads == _engine.default_threads() and _engine.get_thread_limit()
            _engine.set_thread_limit(0 if lifted else num_threads)

        def get_version(self):
            from . import __version__
            return __version__

    threadpoolctl.register(FastcurvController)
    return True
