"""Faults on purpose: kills, full disks, flipped bits, hostile answers. Run by `make chaos`.

Each kind of fault is tried again and again, and a try survives if nothing is lost by it: what was
interrupted goes on and ends with what it would have made, and what is damaged is told in a
sentence.
"""
