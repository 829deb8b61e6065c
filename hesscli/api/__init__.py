"""The Python API: what ``import hesscli`` gives, on the floor below the commands.

A door, no room: it gathers what the rooms have. ``problems`` builds Problems, ``questions`` asks
the studies, ``answers`` renders what they return.
"""
