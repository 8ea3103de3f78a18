"""How often a JPEG makes its decoder go over the whole picture.

A scan that holds nothing is a dozen bytes and costs a pass over all pixels: a file of 200 kB could keep a
decoder busy for minutes. Encoders write about ten scans. Nothing is decoded here.
"""

import re

MOST_SCANS = 100
_START_OF_SCAN, _END_OF_IMAGE = b"\xda", b"\xd9"
_ALONE = b"\x01\xd8"  # markers that no segment follows
# Not a stuffed byte of the data (FF 00), no fill byte and no restart marker, which belong to the scan.
_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")


def has_too_many_scans(data: bytes) -> bool:
    """Whether the picture has more than MOST_SCANS scans; what follows its end does not count."""
    if data.count(b"\xff" + _START_OF_SCAN) <= MOST_SCANS:  # of nearly every file there is
        return False
    scans, place = 0, 0
    while (marker := _MARKER.search(data, place)) is not None and marker[1] != _END_OF_IMAGE:
        place = marker.end()
        scans += marker[1] == _START_OF_SCAN
        if scans > MOST_SCANS:
            return True
        if marker[1] not in _ALONE:
            place += int.from_bytes(data[place : place + 2], "big")
    return False
