"""Small public data sets that recipes of several papers share; nothing here is imported by ``import zoo``.

- :mod:`zoo_core.datasets.npm`: tarballs of the npm registry through the ordinary client, read without unpacking;
- :mod:`zoo_core.datasets.emoji`: five permissively licensed emoji sets as pictures with names and keywords.
"""
