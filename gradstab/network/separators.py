"""Where a layer that holds many is cut: where fewest arrays pass together.

Between two neighbouring articulation points there may be products that a reader takes
for many layers, because a skip of a U-Net, the output of an encoder or a second stream
passes beside the trunk. Inside of such a run the points where fewest arrays are live
are what articulation points are for a chain. It is cut at all of them, and what lies
between is cut again, until it is a layer to its reader: an attention, a residual block.
"""

import collections
import functools
import itertools
from collections.abc import Sequence

from gradstab.network import flow as flows
from gradstab.network import naming
from gradstab.network.boundaries import lead_with_examples, live_after
from gradstab.network.reasons import is_list, module


def separators(
    parts, outline, paths: Sequence[str], num_examples: int, trunks, /
) -> dict:
    """Where to cut layers that hold many.

    Args:
        parts: pairs of the contracted parameter leaves of a layer and its atom; of a
            scan over layers the second is None. All layers, in depth order.
        outline: of the program or scan body.
        paths: dotted path of every parameter leaf.
        num_examples: length of the example axis. Only points at which the examples lead
            in all live arrays are taken.
        trunks: by the id of an atom how many arrays are packed where it ends or begins,
            if but one of them is a trunk: the others pass a whole stack unchanged.
            Between its layers there are as many.

    Returns:
        By the id of an equation the variables that are live behind it.
    """
    homes = [[paths[i] for i in sorted(leaves)] for leaves, _ in parts]
    found = {}
    for i, (_, atom) in enumerate(parts):
        if atom is not None:
            run = _Run(atom, outline.flow, paths, num_examples)
            others = homes[:i] + homes[i + 1 :]
            whole = len(parts) == 1 and outline.length == 1
            found.update(run.cuts(others, whole=whole, trunk=trunks.get(id(atom))))
    return found


class _Run:
    """The data equations of one layer, and what is live between them."""

    def __init__(self, atom, flow: flows.Flow, paths: Sequence[str], num_examples: int):
        self.eqns, self.flow, self.in_vars = atom.eqns, flow, atom.in_vars
        self.live = live_after(self.eqns, flow, atom.out_var)
        self.products = [
            (i, [paths[leaf] for leaf in sorted(leaves)])
            for i, eqn in enumerate(self.eqns)
            if (leaves := flows.contracts_parameter(eqn, flow))
        ]
        self._num_examples = num_examples

    def cuts(self, others, *, whole, trunk=None):
        """By the id of an equation what is live behind it, where this run is cut.

        Args:
            others: paths of the parameters of all other layers.
            whole: whether it is a whole network.
            trunk: how many arrays are live where it ends or begins, if but one of them
                changes.
        """
        found, pieces = {}, [self.products] if len(self.products) > 1 else []
        while pieces:
            homes = [self._paths(piece) for piece in pieces]
            names = naming.base_names([*homes, *others], [*homes, *others])
            following = []
            for piece, name in zip(pieces, names, strict=False):
                many = self._is_many(piece, name, whole=whole)
                parted = self._parted(piece) if many or trunk else []
                if trunk and {len(self.live[end]) for end, _ in parted[1:]} != {trunk}:
                    parted = self._parted(piece) if many else []
                if len(parted) < 2:
                    others = [*others, self._paths(piece)]
                    continue
                for end, _ in parted[1:]:
                    found[id(self.eqns[end])] = self.live[end]
                following += [products for _, products in parted]
            pieces, whole, trunk = following, False, None
        return found

    def _is_residual(self):
        """Whether nothing but what enters passes around a chain of products."""
        cuts = [
            min((self.live[i] for i in range(a, b)), key=len)
            for (a, _), (b, _) in itertools.pairwise(self.products)
        ]
        passing = set(self.in_vars)
        return len(passing) == 1 and all(len(set(c) - passing) < 2 for c in cuts)

    def _is_many(self, piece, name: str, *, whole):
        """Whether a reader would take the products for several layers, in a row."""
        modules = list(dict.fromkeys(map(module, self._paths(piece))))
        depth = self._depth(piece, module)
        if "+" in name or whole:
            siblings = len({m.rpartition(".")[0] for m in modules}) < 2
            numbered = all(m.rpartition(".")[2].isdigit() for m in modules)
            if len(modules) > 2 and depth > 2:
                return True
            apart = not siblings or (numbered and len(modules) == 2)
            return len(modules) > 1 and depth > 1 and apart
        if depth < 3 or self._is_residual():
            return False
        part = functools.partial(naming.part_of, name)
        sizes = collections.Counter(map(part, self._paths(piece)))
        several = sum(size > 1 for size in sizes.values()) > 1
        in_a_row = self._depth(piece, lambda path: part(module(path))) > 1
        return is_list(name, modules) or (several and in_a_row)

    def _parted(self, piece):
        """``(end of the part before, products)`` where fewest arrays are live."""
        pairs = [
            (before, after)
            for before, after in itertools.pairwise(piece)
            if set(map(module, before[1])) != set(map(module, after[1]))
        ]
        sizes = {
            i: len(self.live[i])
            for (a, _), (b, _) in pairs
            for i in range(a, b)
            if self._may_end(i)
        }
        least = min(sizes.values(), default=0)
        parts = [(-1, [piece[0]])]
        for before, after in itertools.pairwise(piece):
            ends = [i for i in range(before[0], after[0]) if sizes.get(i) == least]
            if ends:
                parts.append((ends[-1], []))
            parts[-1][1].append(after)
        return self._rejoined(parts)

    def _rejoined(self, parts):
        """The parts, with one for those that make one small module together."""
        found = parts[:1]
        for end, products in parts[1:]:
            together = [*found[-1][1], *products]
            modules = set(map(module, self._paths(together)))
            parents = {m.rpartition(".")[0] for m in modules}
            numbered = any(m.rpartition(".")[2].isdigit() for m in modules)
            if (
                len(modules) > 2
                and len(parents) == 1
                and parents != {""}
                and not numbered
            ):
                found[-1] = found[-1][0], together
            else:
                found.append((end, products))
        return found

    def _may_end(self, i):
        return all(lead_with_examples(v, self._num_examples) for v in self.live[i])

    def _depth(self, piece, group):
        """How many of these products, of one group after another, are in a row."""
        depth, last, longest = {}, {}, 0
        products, (start, _), (end, _) = dict(piece), piece[0], piece[-1]
        for i, eqn in enumerate(self.eqns[start : end + 1], start):
            moving = [v for v in eqn.invars if self.flow.is_data(v)]
            before = max(moving, key=lambda v: depth.get(v, 0), default=None)
            length, groups = depth.get(before, 0), last.get(before)
            if i in products:
                own = frozenset(map(group, products[i]))
                length, groups = length + (own != groups), own
                longest = max(longest, length)
            for v in eqn.outvars:
                depth[v], last[v] = length, groups
        return longest

    @staticmethod
    def _paths(piece):
        return list(dict.fromkeys(path for _, paths in piece for path in paths))
