"""For plugin authors: the conformance kit and fixtures.  Nothing heavy is imported here."""
