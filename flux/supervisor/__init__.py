"""The process tree: listeners, forks, signals, drain, control socket."""
