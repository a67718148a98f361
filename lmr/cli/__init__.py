"""The command line: reads options, hands over to the library, prints what it returns."""
