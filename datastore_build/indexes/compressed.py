"""Making an IVF-PQ index: lists, a rotation, codes of what a list leaves of its vectors.

In the words of Jégou et al. 2011: a coarse quantizer, and a product quantizer of residuals. The rotation
before both is that of Ge et al. 2013. Codes have four bits, so that they can be scanned in registers (André
et al. 2017).
"""

from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from datastore_build.indexes.plan import IndexPlan
from retrieval.index_check import inverted_index

ROTATION_TRAINING = 2**14  # vectors the rotation is trained on: each of its rounds multiplies all of them
_ROTATION_ROUNDS = 4
_CLUSTERING_ROUNDS = 10

Vectors = npt.NDArray[np.float32]


def train_compressed(sample: Vectors, plan: IndexPlan) -> Any:
    """An empty index to which vectors can be added, and then `prepare_search` is due.

    A vector belongs to the list with the nearest centroid. Its length is that of the mean of its list, so
    that codes have least to tell; its direction is found by spherical k-means, which keeps lists of like size
    where k-means would spend most of them on vectors that are far from everything.
    """
    dimension = sample.shape[1]
    nlist, parts, bits = (plan.parameters[name] for name in ("nlist", "subquantizers", "bits"))
    directions = list_directions(sample, nlist, plan.seed)
    cosines, lists = _flat(directions).search(sample, 1)
    sizes = np.bincount(lists[:, 0], minlength=nlist)
    lengths = np.bincount(lists[:, 0], cosines[:, 0], nlist) / np.maximum(sizes, 1)
    centroids = directions * lengths[:, None].astype(np.float32)

    rotation = faiss.OPQMatrix(dimension, parts)
    rotation.niter = _ROTATION_ROUNDS
    rotation.max_train_points = ROTATION_TRAINING
    codes = faiss.ProductQuantizer(dimension, parts, bits)
    codes.cp.min_points_per_centroid = 1  # else faiss prints a warning about small datastores
    rotation.pq = codes
    rotation.train(sample - centroids[lists[:, 0]])
    rotation.pq = None

    quantizer = faiss.IndexFlatL2(dimension)
    quantizer.add(rotation.apply(centroids))
    inner = faiss.IndexIVFPQFastScan(quantizer, dimension, nlist, parts, bits, faiss.METRIC_INNER_PRODUCT)
    hand_over(quantizer, inner)
    inner.by_residual = True
    inner.pq.cp.seed = plan.seed + 1
    inner.pq.cp.min_points_per_centroid = 1
    inner.train(rotation.apply(sample))
    index = faiss.IndexPreTransform(rotation, inner)
    hand_over(rotation, index)
    hand_over(inner, index)
    return index


def prepare_search(index: Any, sample: Vectors) -> None:
    """To be called once everything is encoded.

    A code is the mean of what it stands for, and shorter: the score of a vector that points the query's way
    would be too low, the more so the less of it the centroid explains. So the parts that codes are made of
    are stretched (the unbiased estimator of Gao and Long 2024, section 3.2, with one factor for all vectors).
    And queries are compared with centroids as they are with entries, by inner product.
    """
    inner = inverted_index(index)
    quantizer: Any = faiss.downcast_index(inner.quantizer)
    rotated = faiss.downcast_VectorTransform(index.chain.at(0)).apply(sample)
    residuals = rotated - quantizer.reconstruct_batch(quantizer.search(rotated, 1)[1][:, 0])
    decoded = inner.pq.decode(inner.pq.compute_codes(np.ascontiguousarray(residuals)))
    kept = float((residuals * decoded).sum()) / max(float((residuals * residuals).sum()), 1e-12)
    if kept > 0:  # 0 if the centroids are the vectors themselves
        stretched = faiss.vector_to_array(inner.pq.centroids) / np.float32(kept)
        faiss.copy_array_to_vector(stretched, inner.pq.centroids)

    products = _flat(quantizer.reconstruct_n(0, quantizer.ntotal))
    inner.quantizer = products
    hand_over(products, inner)
    quantizer.this.own(True)  # nobody else frees it now


def list_directions(sample: Vectors, nlist: int, seed: int) -> Vectors:
    """(nlist, E) unit vectors about which the vectors of a sample lie, by spherical k-means."""
    clustering = faiss.Clustering(sample.shape[1], nlist)
    clustering.seed = seed + 1
    clustering.niter = _CLUSTERING_ROUNDS
    clustering.spherical = True
    clustering.min_points_per_centroid = 1
    clustering.max_points_per_centroid = 2**31 - 1  # the sample is bounded already
    clustering.train(sample, faiss.IndexFlatIP(sample.shape[1]))
    centroids: Vectors = faiss.vector_to_array(clustering.centroids).reshape(nlist, -1)
    return centroids


def hand_over(part: Any, owner: Any) -> None:
    """Python no longer frees the part; its owner does."""
    part.this.disown()
    owner.own_fields = True


def _flat(vectors: Vectors) -> Any:
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    return index
