"""What runs inside a box: standard library only, mounted there read-only, started by `python -I -S`.

`runner` is the box's first process; it runs a program on standard inputs, or starts `serve`, which answers calls of the
program's functions, or `check`, which runs test code against such a program in another box. They speak `wire`. Nothing
here is trusted: the process outside takes what comes out as data.
"""
