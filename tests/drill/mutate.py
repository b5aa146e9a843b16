"""Seeded damage to the bytes of a file, as a disk, a network or a hand does it."""

from random import Random

__all__ = ["MUTATIONS", "mutated"]


def flip_bit(data, random):
    place = random.randrange(len(data))
    data[place] ^= 1 << random.randrange(8)


def flip_bytes(data, random):
    for _ in range(random.randint(1, 8)):
        data[random.randrange(len(data))] = random.randrange(256)


def truncate(data, random):
    del data[random.randrange(len(data)) :]


def swap(data, random):
    one, two = random.randrange(len(data)), random.randrange(len(data))
    data[one], data[two] = data[two], data[one]


def duplicate(data, random):
    start = random.randrange(len(data))
    chunk = data[start : start + random.randint(1, 200)]
    place = random.randrange(len(data))
    data[place:place] = chunk


def remove(data, random):
    start = random.randrange(len(data))
    del data[start : start + random.randint(1, 200)]


def zero_run(data, random):
    start = random.randrange(len(data))
    stop = min(len(data), start + random.randint(1, 200))
    data[start:stop] = bytes(stop - start)


def edit_digit(data, random):
    digits = [place for place, byte in enumerate(data) if chr(byte).isdigit()]
    if digits:
        place = random.choice(digits)
        data[place] = ord(random.choice([d for d in "0123456789" if ord(d) != data[place]]))
    else:
        flip_bit(data, random)


MUTATIONS = (flip_bit, flip_bytes, truncate, swap, duplicate, remove, zero_run, edit_digit)


def mutated(data, seed):
    """Return changed bytes and the name of the mutation; the same for the same seed."""
    random = Random(seed)
    mutation = random.choice(MUTATIONS)
    changed = bytearray(data)
    while changed == data:
        mutation(changed, random)
    return bytes(changed), mutation.__name__
