"""The parts of reliable streaming that know no host: format, store, reader, writer, HTTP logic."""
