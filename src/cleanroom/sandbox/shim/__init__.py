"""The program that is pid 1 of a container (`init.c`), its messages (`wire`),
and building it (`build`).
"""
