"""A fleet that is not there: messages as kiosks would send them, faults included, and what there was to count.

`plan` is what was asked for; `traffic` draws visitors, `device` counts them as a kiosk does, `wire` writes the payload,
`faults` decides when it comes, twice or never, `hostile` is what strangers send; `fleet` puts them into one stream in
the order of receipt, `truth` keeps the books; `segments` writes a landing log, `publish` sends to a broker.
"""
