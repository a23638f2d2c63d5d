"""The wall between the two services: the SQLite outbox and the files of the runtime folder."""
