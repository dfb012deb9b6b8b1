"""The command line: one file a command. Arguments, settings, tables and progress; no logic."""
