from hypothesis import settings

# A busy machine is slow, not wrong; whole tests have a time limit (pytest-timeout).
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")
