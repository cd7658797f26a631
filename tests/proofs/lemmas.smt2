; The lemmas that proof.h gives to WP: `unsat` says that nothing contradicts one.
; Aligning by a mask is subtracting the remainder.
(declare-const x (_ BitVec 64))
(assert (not (and
  (= (bvand x #xfffffffffffffff0) (bvsub x (bvurem x #x0000000000000010)))
  (= (bvand x #xffffffffffffffc0) (bvsub x (bvurem x #x0000000000000040)))
  (= (bvand x #xffffffffffe00000) (bvsub x (bvurem x #x0000000000200000))))))
(check-sat)
(reset)
; One element more than a still fits into b of them.
(declare-const a Int)
(declare-const b Int)
(declare-const c Int)
(assert (and (<= 0 a) (< a b) (<= 0 c)))
(assert (not (<= (+ (* a c) c) (* b c))))
(check-sat)
