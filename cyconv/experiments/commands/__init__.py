"""The commands of ``cyconv`` (see `cyconv.__main__`): one experiment each, with ``main()`` and its constants."""
