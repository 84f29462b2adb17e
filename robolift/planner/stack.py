"""One stack of equal transformer layers: what its layers keep for their gradients and what they compute."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Keeps:
    """What a layer's gradient needs of its forward pass, in tensors; as the layer is written, and as autodiff takes it.

    Attributes:
        norms: Float32 tensors of tokens x width.
        inputs: Tensors of tokens x width in the computation's type.
        hidden: Tensors of tokens x hidden width in the computation's type.
        shared_keys: Whether keys and values are kept once for the query heads that share them, or repeated for each.
        head_norms: Float32 tensors of tokens x heads x head width, of norms of queries and keys.
        attention: Whether attention weights are kept: in float32, and once more in the computation's type.
    """

    norms: int
    inputs: int
    hidden: int
    shared_keys: bool = True
    head_norms: int = 0
    attention: bool = True


@dataclass(frozen=True, kw_only=True)
class Lane:
    """Tokens that share weights in a layer; a layer of two experts has two lanes and one attention.

    Attributes:
        tokens: Tokens of a sequence.
        width: Of a token.
        mlp_dim: Hidden width of the feed-forward layer.
        gated: Whether the feed-forward layer has two inner products, one of which gates the other (GeGLU).
        conditioned: Whether its norms are scaled by what is known of the flow time (adaRMS).
        lora_rank: Rank of the low-rank updates; the matrices that they update are then frozen. 0 for none.
        frozen: Whether its matrices stay as they are without such updates.
    """

    tokens: int
    width: int
    mlp_dim: int
    gated: bool = True
    conditioned: bool = False
    lora_rank: int = 0
    frozen: bool = False


@dataclass(frozen=True, kw_only=True)
class Stack:
    """Layers of one shape, computed one after another on the same sequences.

    Attributes:
        name: What it is called in the table.
        depth: Layers.
        sequences: Sequences of one row of the batch: pictures for a vision tower, 1 otherwise.
        lanes: Tokens of a sequence by the weights that they share.
        keeps: What each of its layers keeps.
        num_heads: Query heads.
        num_kv_heads: Key and value heads.
        head_dim: Width of a head.
        has_gradient: Whether a gradient passes through it; a frozen tower that nothing trained precedes has none.
    """

    name: str
    depth: int
    sequences: int
    lanes: tuple[Lane, ...]
    keeps: Keeps
    num_heads: int
    num_kv_heads: int
    head_dim: int
    has_gradient: bool = True

    @property
    def tokens(self) -> int:
        """Tokens that attend to one another."""
        return sum(lane.tokens for lane in self.lanes)

    @property
    def layer_inputs(self) -> int:
        """Elements of the input of one layer, for one row: all that a recomputed layer keeps."""
        return self.sequences * sum(lane.tokens * lane.width for lane in self.lanes)

    @property
    def attention_pairs(self) -> int:
        """Elements of one layer's attention logits, for one row: heads x tokens^2."""
        return self.sequences * self.num_heads * self.tokens**2

    @property
    def cache_elements(self) -> int:
        """Elements of the keys and values of all layers, for one row."""
        return self.depth * self.sequences * self.tokens * 2 * self.num_kv_heads * self.head_dim

    def matrices(self, lane: Lane) -> int:
        """Return the elements of the matrices that each token of ``lane`` meets in a layer, without low-rank updates.

        With heads n, key and value heads k, head width h, width D, hidden width M: (2 n + 2 k) D h of attention and 3 D
        M of a gated feed-forward layer, 2 D M of a plain one.
        """
        attention = 2 * (self.num_heads + self.num_kv_heads) * self.head_dim * lane.width
        return attention + (3 if lane.gated else 2) * lane.width * lane.mlp_dim

    def low_rank(self, lane: Lane) -> int:
        """Return the elements of the low-rank updates of ``lane`` in a layer.

        A pair of rank r for each head's query, key, value and output matrix (D x h) and for the three of the
        feed-forward layer (D x M): r (2 n + 2 k) (D + h) + 3 r (D + M), as openpi's ``lora.py``.
        """
        attention = 2 * (self.num_heads + self.num_kv_heads) * (lane.width + self.head_dim)
        return lane.lora_rank * (attention + 3 * (lane.width + lane.mlp_dim))

    def layer_weights(self) -> int:
        """Return the elements of one layer's matrices, adaRMS (two of D x 3 D) included."""
        return sum(
            self.matrices(lane) + self.low_rank(lane) + 6 * lane.width**2 * lane.conditioned for lane in self.lanes
        )

    def product_flops(self, *, trained_only: bool = False) -> int:
        """Return the forward FLOPs of all layers' products with weights, for one row.

        2 for each weight and token that meet (Kaplan et al. 2020, section 2.1; Chowdhery et al. 2022, appendix B). The
        condition of adaRMS is one token of a row.

        Args:
            trained_only: Leave out the products with frozen matrices.
        """
        layer = 0
        for lane in self.lanes:
            frozen = trained_only and (lane.frozen or lane.lora_rank > 0)
            layer += lane.tokens * ((0 if frozen else self.matrices(lane)) + self.low_rank(lane))
            layer += 0 if frozen else 6 * lane.width**2 * lane.conditioned
        return self.depth * self.sequences * 2 * layer

    def attention_flops(self) -> int:
        """Return the forward FLOPs of all layers' attention, for one row: 2 x 2 x heads x tokens^2 x head width.

        One product gives the logits, one the output (Chowdhery et al. 2022, appendix B, who count the same for training
        as 12 L H Q T for each token). Masked pairs are computed too, and are counted.
        """
        return self.depth * 4 * self.attention_pairs * self.head_dim

    def recomputed_flops(self) -> int:
        """Return the FLOPs of computing all layers again for their gradients, for one row.

        A layer's last product, of its feed-forward layer, is left out: no gradient needs what it gives.
        """
        last = self.depth * self.sequences * sum(2 * lane.tokens * lane.width * lane.mlp_dim for lane in self.lanes)
        return self.product_flops() + self.attention_flops() - last
