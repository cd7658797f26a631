; The lemmas that proof.h gives to WP: aligning by a mask is subtracting the remainder. `unsat`: they hold.
(declare-const x (_ BitVec 64))
(assert (not (and
  (= (bvand x #xfffffffffffffff0) (bvsub x (bvurem x #x0000000000000010)))
  (= (bvand x #xffffffffffffffc0) (bvsub x (bvurem x #x0000000000000040))))))
(check-sat)
