"""What compiled programs consist of, read from their text (`jax.stages.Compiled.as_text`)."""

import collections
import dataclasses
import math
import re

_KINDS = {"convolution": "convolutions", "dot": "products"}
_NAME = r"^ *(?:ROOT )?%?([\w.\-]+) = "  # of what a line computes
_CONTAINERS = {"while", "conditional", "call"}  # what they hold stands in the text as well


@dataclasses.dataclass(frozen=True)
class Operation:
    """One of a compiled program.

    Attributes:
      part: of the model.
      backward: whether it computes gradients.
      kind: "convolutions", "products" or "rest".
      flop: two for a multiplication and an addition, in all turns of a loop; 0 for the rest.
    """

    part: str
    backward: bool
    kind: str
    flop: float


def operations(program: str) -> dict[str, Operation]:
    """By name, of the text of a compiled program."""
    lines = re.findall(_NAME + r"(\(.*?\)|\S+) ([\w\-]+)\((.*)$", program, re.M)
    shapes = {name: shape for name, shape, *_ in lines}
    inner = dict(re.findall(r"^%?([\w.\-]+) \(.*?\{\n(.*?)^\}", program, re.M | re.S))
    turns = _turns(inner, lines)
    named, users = {}, collections.defaultdict(list)
    for name, _, _, rest in lines:
        read = re.findall(r"%([\w.\-]+)", rest)
        text = "".join(inner.get(x, "") for x in read) + rest
        named[name] = next(filter(_part, reversed(re.findall(r'op_name="([^"]*)"', text))), "")
        for x in read:
            users[x].append(name)
    found = {}
    for name, shape, opcode, rest in lines:
        read = re.findall(r"%([\w.\-]+)", rest)
        # The compiler drops the names of what it rewrites: those who use it, or else whom it uses,
        # tell. What reads anything of the backward pass belongs to it.
        read_from = sorted((named.get(x, "") for x in read), key=_forward)
        around = [named[name], *(named[x] for x in users[name]), *read_from]
        source = named[name] = next(filter(None, around), "")
        flop = 0.0
        if opcode in _KINDS:
            one, other = (_sizes(shapes[x]) for x in read[:2])
            flop = 2.0 * math.prod(_sizes(shape)) * _summed(opcode, one, other, rest) * turns[name]
        if opcode not in _CONTAINERS:
            kind = _KINDS.get(opcode, "rest")
            found[name] = Operation(_part(source) or "rest", not _forward(source), kind, flop)
    return found


def _turns(inner, lines):
    """How often each operation is computed: those in loops of known length more than once."""
    turns = collections.defaultdict(lambda: 1)
    for _, _, opcode, rest in lines:
        count = re.search(r'"known_trip_count":\{"n":"(\d+)"', rest)
        if opcode == "while" and count:
            waiting, within = [re.search(r"body=%([\w.\-]+)", rest)[1]], set()
            while waiting:
                body = waiting.pop()
                within.add(body)
                called = re.findall(r"(?:calls|to_apply|body)=%([\w.\-]+)", inner[body])
                waiting += [x for x in called if x not in within]
            for body in within:
                for name in re.findall(_NAME, inner[body], re.M):
                    turns[name] *= int(count[1])
    return turns


def _part(source):
    """The part of the model, of an operation's name: Flax's module, or a scope of the step."""
    found = re.search(r"\(Network\)+/(\w+)/|\b(augment|losses|optimizer)\b", source)
    return found and (found[1] or found[2])


def _forward(source):
    return "transpose(" not in source


def _sizes(shape):
    return _numbers(re.search(r"\[([\d,]*)\]", shape)[1])


def _numbers(text):
    return [int(x) for x in text.split(",") if x]


def _summed(opcode, one, other, rest):
    """How many products each number of the result is the sum of."""
    if opcode == "dot":
        summed = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", rest)[1]
        return math.prod(one[i] for i in _numbers(summed))
    labels = re.search(r"dim_labels=\w+_(\w+)->", rest)[1]
    return math.prod(other) / other[labels.index("o")]


def collectives(program, devices):
    """Bytes of each collective in a compiled program: of the whole array, not of a share of it."""
    found = []
    pattern = r"= (.*?) (all-reduce|all-gather|reduce-scatter)(?:-start)?\("
    for result, kind in re.findall(pattern, program):
        share = devices if kind == "reduce-scatter" else 1
        arrays = re.findall(r"\b[fsu](\d+)\[([\d,]*)\]", result)
        sizes = [int(bits) // 8 * math.prod(_numbers(shape)) for bits, shape in arrays]
        found.append(share * sum(sizes))
    return found
