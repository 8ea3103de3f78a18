"""Which lists of an IVF-PQ index a query looks into, and what it finds there.

Lists are taken by the cosine of the query to their centroid. Centroids are means: that of a tight cluster is
long, that of a list of many small clusters short, and the inner product alone would pass over those. What the
index adds to the scores of a list's codes is the inner product all the same.
"""

from collections.abc import Iterator
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from retrieval.index_check import inverted_index

_ALONE = 11  # of the ways in which faiss scans a list, the quickest for one query
_TOGETHER = 4  # queries that faiss compares with a code while it is at hand

Found = tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]


class ListProber:
    """A rotation, centroids, and the lists behind them. Nothing in the index is changed."""

    def __init__(self, index: Any) -> None:
        self._index = index  # the memory below is its own
        self._lists = inverted_index(index)
        self._rotation = faiss.downcast_VectorTransform(index.chain.at(0))
        self.nlist: int = self._lists.nlist
        quantizer: Any = faiss.downcast_index(self._lists.quantizer)
        centroids = faiss.rev_swig_ptr(quantizer.get_xb(), self.nlist * quantizer.d)
        self._centroids: npt.NDArray[np.float32] = centroids.reshape(self.nlist, quantizer.d)
        self._lengths = np.maximum(np.linalg.norm(self._centroids, axis=1), 1e-12).astype(np.float32)
        # Made once for each number of lists, as that takes as long as scanning one.
        self._parameters: dict[int, Any] = {}
        self._scan_alone = _twin(self._lists, _ALONE) if self.nlist == 1 else self._lists

    def rotated(self, query: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """A query (1, E) as the lists hold vectors."""
        return self._rotation.apply(query)

    def cosines(self, rotated: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """(nlist,) of a rotated query (1, E) to every centroid; right but for the length of the query."""
        cosines: npt.NDArray[np.float32] = (self._centroids @ rotated[0]) / self._lengths
        return cosines

    def search(self, query: npt.NDArray[np.float32], count: int, *, most: int, margin: float | None) -> Found:
        """Scores and entries (≤ count,) in the lists nearest to a query (1, E), best first.

        most: how many lists at most. margin: none whose centroid's cosine is that much below the best.
        """
        rotated = self.rotated(query)
        cosines = self.cosines(rotated)
        lists = np.arange(self.nlist) if most >= self.nlist else np.argpartition(-cosines, most - 1)[:most]
        if margin is not None:
            lists = lists[cosines[lists] >= cosines.max() - margin]
        products = cosines[lists] * self._lengths[lists]
        scores, entries = self._scanned(self._scan_alone, rotated, count, lists[None], products[None])
        hit = entries[0] >= 0
        return scores[0][hit], entries[0][hit]

    def search_together(self, queries: npt.NDArray[np.float32], count: int) -> Iterator[Found]:
        """As `search`, of each query (B, E), where there is one list: each code is read once for several.

        Raises ValueError for more lists.
        """
        if self.nlist != 1:
            raise ValueError(f"queries look into different ones of {self.nlist:,} lists")
        for start in range(0, len(queries), _TOGETHER):
            part = queries[start : start + _TOGETHER]
            if len(part) == 1:
                yield self.search(part, count, most=1, margin=None)
                continue
            # One by one: rotated together, they would be rounded otherwise.
            rotated = np.concatenate([self.rotated(query[None]) for query in part])
            products = np.stack([self.cosines(query[None]) * self._lengths for query in rotated])
            lists = np.zeros((len(part), 1), np.int64)
            yield from zip(*self._scanned(self._lists, rotated, count, lists, products), strict=True)

    def _scanned(
        self,
        index: Any,
        rotated: npt.NDArray[np.float32],
        count: int,
        lists: npt.NDArray[np.int64],
        products: npt.NDArray[np.float32],
    ) -> Found:
        """Scores and entries (B, count); lists and products: (B, lists), the products with the centroids."""
        queries, number = lists.shape
        if number not in self._parameters:
            classes: Any = faiss  # whose stubs leave the arguments out
            self._parameters[number] = classes.SearchParametersIVF(nprobe=number)
        lists, products = np.ascontiguousarray(lists, np.int64), np.ascontiguousarray(products, np.float32)
        scores, entries = np.empty((queries, count), np.float32), np.empty((queries, count), np.int64)
        # The wrapper for Python takes no parameters, and without them a number of lists set in the index.
        index.search_preassigned_c(
            queries,
            faiss.swig_ptr(rotated),
            count,
            faiss.swig_ptr(lists),
            faiss.swig_ptr(products),
            faiss.swig_ptr(scores),
            faiss.swig_ptr(entries),
            False,
            self._parameters[number],
        )
        return scores, entries


def _twin(index: Any, way: int) -> Any:
    """The same lists, codes and centroids, searched in another way. The index must outlive it."""
    twin = faiss.IndexIVFPQFastScan(
        index.quantizer, index.d, index.nlist, index.pq.M, index.pq.nbits, faiss.METRIC_INNER_PRODUCT
    )
    twin.pq, twin.by_residual, twin.is_trained = index.pq, index.by_residual, True
    twin.replace_invlists(index.invlists, False)
    twin.ntotal, twin.implem = index.ntotal, way
    return twin
