"""What makes environments, behind the small protocol of `base`.

A backend turns specifications into environments and is ignorant of the bus, of phases and of
recovery. `embedded` needs the kernel only, `containers` an engine besides, `memory` nothing. What
two of them share and what removes things of dead runs is beside them.
"""
