"""The command line: parse flags, call the library, render."""
