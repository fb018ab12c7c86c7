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
            return _engine.get_thread_limit() or _engine.default_threads()

        def set_num_threads(self, num_threads):
            _engine.set_thread_limit(num_threads if num_threads < _engine.default_threads() else 0)

        def get_version(self):
            from . import __version__
            return __version__

    threadpoolctl.register(FastcurvController)
    return True
