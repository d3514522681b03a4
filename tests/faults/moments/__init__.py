"""Faults at drawn moments of running commands: signals, disks, files, processes, and what is left of the work."""
