"""Where a layer that holds many is cut: where fewest arrays pass together.

Between two neighbouring articulation points there may be products that a reader takes
for many layers, because a skip of a U-Net, the output of an encoder or a second stream
passes beside the trunk. Inside of such a run the points where fewest arrays are live
are what articulation points are for a chain. It is cut at all of them, and what lies
between is cut again, until it is a layer to its reader: an attention, a residual block.
"""

import itertools

from gradstab.network import flow as flows
from gradstab.network import naming
from gradstab.network.boundaries import lead_with_examples, live_after
from gradstab.network.reasons import is_list, module, seems_many


def separators(parts, outline, paths, num_examples, /) -> dict:
    """Where to cut layers that hold many.

    Args:
        parts: pairs of the contracted parameter leaves of a layer and its atom; of a
            scan over layers the second is None. All layers, in depth order.
        outline: of the program or scan body.
        paths: dotted path of every parameter leaf.
        num_examples: length of the example axis. Only points at which the examples lead
            in all live arrays are taken.

    Returns:
        By the id of an equation the variables that are live behind it.
    """
    homes = [[paths[i] for i in sorted(leaves)] for leaves, _ in parts]
    names = naming.base_names(homes, homes)
    found = {}
    for i, (_, atom) in enumerate(parts):
        if atom is not None and seems_many(names[i], homes[i], alone=len(parts) == 1):
            run = _Run(atom, outline.flow, paths, num_examples)
            others = homes[:i] + homes[i + 1 :]
            if not run.is_residual() or "+" in names[i] or len(parts) == 1:
                found.update(run.cuts(others))
    return found


class _Run:
    """The data equations of one layer, and what is live between them."""

    def __init__(self, atom, flow, paths, num_examples):
        self.eqns, self.flow, self.in_vars = atom.eqns, flow, atom.in_vars
        self.live = live_after(self.eqns, flow, atom.out_var)
        self.products = [
            (i, [paths[leaf] for leaf in sorted(leaves)])
            for i, eqn in enumerate(self.eqns)
            if (leaves := flows.contracts_parameter(eqn, flow))
        ]
        self._num_examples = num_examples
        self._depths = self._chain()

    def cuts(self, others):
        """By the id of an equation what is live behind it, where this run is cut."""
        found, pieces = {}, [self.products]
        while pieces:
            homes = [self._paths(piece) for piece in pieces]
            names = naming.base_names([*homes, *others], [*homes, *others])
            following = []
            for piece, name in zip(pieces, names, strict=False):
                if not self._is_many(piece, name):
                    others = [*others, self._paths(piece)]
                    continue
                parted = self._parted(piece)
                if len(parted) < 2:
                    others = [*others, self._paths(piece)]
                    continue
                for end, _ in parted[1:]:
                    found[id(self.eqns[end])] = self.live[end]
                following += [products for _, products in parted]
            pieces = following
        return found

    def is_residual(self):
        """Whether nothing but what enters passes around a chain of products."""
        cuts = [
            min((self.live[i] for i in range(a, b)), key=len)
            for (a, _), (b, _) in itertools.pairwise(self.products)
        ]
        passing = set(self.in_vars)
        return len(passing) == 1 and all(len(set(c) - passing) < 2 for c in cuts)

    def _is_many(self, piece, name):
        """Whether a reader would take the products for several layers, in a row."""
        paths = self._paths(piece)
        modules = list(dict.fromkeys(map(module, paths)))
        first, *_ = piece
        depth = max(self._depths[i] for i, _ in piece) - self._depths[first[0]] + 1
        if len(modules) > 2:
            return depth > 2 and (is_list(name, modules) or "+" in name)
        siblings = len({m.rpartition(".")[0] for m in modules}) < 2
        numbered = all(m.rpartition(".")[2].isdigit() for m in modules)
        return len(modules) == 2 and depth > 1 and (numbered or not siblings)

    def _parted(self, piece):
        """``(end of the part before, products)`` where fewest arrays are live."""
        pairs = list(itertools.pairwise(piece))
        sizes = {
            i: len(self.live[i])
            for (a, _), (b, _) in pairs
            for i in range(a, b)
            if self._may_end(i)
        }
        if not sizes:
            return [(-1, piece)]
        least, parts = min(sizes.values()), [(-1, [piece[0]])]
        for (a, _), (b, following) in pairs:
            ends = [i for i in range(a, b) if sizes.get(i) == least]
            if ends:
                parts.append((ends[-1], []))
            parts[-1][1].append((b, following))
        return parts

    def _may_end(self, i):
        return all(lead_with_examples(v, self._num_examples) for v in self.live[i])

    def _chain(self):
        """For each product how many products, of other modules, precede it in a row."""
        depth, last, found = {}, {}, {}
        products = dict(self.products)
        for i, eqn in enumerate(self.eqns):
            moving = [v for v in eqn.invars if self.flow.is_data(v)]
            before = max(moving, key=lambda v: depth.get(v, 0), default=None)
            length, modules = depth.get(before, 0), last.get(before)
            if i in products:
                own = frozenset(map(module, products[i]))
                length, modules = length + (own != modules), own
                found[i] = length
            for v in eqn.outvars:
                depth[v], last[v] = length, modules
        return found

    @staticmethod
    def _paths(piece):
        return list(dict.fromkeys(path for _, paths in piece for path in paths))
